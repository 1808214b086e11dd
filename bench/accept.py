"""accept: how many events a second one `tocsin http` takes from 64 connections, beside the same endpoint with nothing
stored; and how long a caller waits at 200 and at 500 requests a second."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tocsin.bench.report import Figure, beside, under
from tocsin.bench.servers import ADMIN_KEY, Program, Servers, folder, own_servers, processor_s, running, tocsin

_CONNECTIONS: Final = 64
_RATES: Final = (200, 500)
_ROUNDS: Final = 5
_HERE: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class _Round:
    """Events a second; microseconds of a core that one costs the answering process; shares of a core."""

    rate: float
    own_us: float
    own_share: float
    servers_share: float
    client_share: float


def measure(seconds: float) -> list[Figure]:
    """Takes about `seconds`: half for the throughput of both, half for the latency."""
    each_s = max(1.0, seconds / 4 / _ROUNDS)
    with folder() as where, own_servers(where / "data") as servers:
        given = servers.environ()
        limit_of = [str(_HERE / "nothing_stored.py")]
        with running(tocsin("http"), where, given) as ours, running(limit_of, where, given) as limit:
            ours.ready()
            limit.ready("/health")
            for program in (ours, limit):
                _load(program, 1.0)
            rates = _throughput(ours, limit, servers, each_s)
            latencies = {rate: [_load(ours, each_s, rate) for _ in range(_ROUNDS)] for rate in _RATES}
    return [rates, *(figure for rate, said in latencies.items() for figure in _latency(rate, said))]


def _throughput(ours: Program, limit: Program, servers: Servers, each_s: float) -> Figure:
    """Turn by turn. Beside the rates stands what an event costs the process that answers, which other work on the
    machine disturbs less."""
    found: dict[str, list[_Round]] = {"ours": [], "limit": []}
    for _ in range(_ROUNDS):
        found["ours"].append(_round(ours, each_s, servers))
        found["limit"].append(_round(limit, each_s))
    mine = found["ours"]
    notes = {
        "us_of_a_core_an_event": round(statistics.median(each.own_us for each in mine)),
        "at_limit": round(statistics.median(each.own_us for each in found["limit"])),
        "http_share": _median(each.own_share for each in mine),
        "servers_share": _median(each.servers_share for each in mine),
        "client_share": _median(each.client_share for each in mine),
        "client_share_at_limit": _median(each.client_share for each in found["limit"]),
    }
    rates = {name: [each.rate for each in rounds] for name, rounds in found.items()}
    return beside("accept", "events/s", rates["ours"], rates["limit"], least=0.5, notes=notes)


def _round(program: Program, seconds: float, servers: Servers | None = None) -> _Round:
    others = (servers.postgres_pid, servers.redis_pid) if servers else ()
    own_s, others_s = processor_s(program.pid), processor_s(*others)
    said = _load(program, seconds)
    own_s, others_s = processor_s(program.pid) - own_s, processor_s(*others) - others_s
    return _Round(
        said["rate"], own_s / said["answered"] * 1e6, own_s / seconds, others_s / seconds, said["client_share"]
    )


def _median(shares: Iterable[float]) -> float:
    return round(statistics.median(shares), 2)


def _latency(rate: int, said: list[dict[str, Any]]) -> list[Figure]:
    longest = round(max(each["longest_ms"] for each in said), 1)
    return [
        under(f"accept_median_{rate}", "ms", [each["median_ms"] for each in said], 10, at=f"{rate}/s"),
        under(f"accept_p99_{rate}", "ms", [each["p99_ms"] for each in said], 20, at=f"{rate}/s", longest_ms=longest),
    ]


def _load(program: Program, seconds: float, rate: float = 0) -> dict[str, Any]:
    """What load.py says. Raises RuntimeError when an answer was not 202, for then it measured something else."""
    command = [sys.executable, "-S", str(_HERE / "load.py")]
    numbers = [program.port, _CONNECTIONS, seconds, rate]
    environ = {**os.environ, "TOCSIN_ADMIN_KEY": ADMIN_KEY}
    done = subprocess.run(
        [*command, *map(str, numbers)], env=environ, capture_output=True, text=True, check=True, timeout=seconds + 60
    )
    said: dict[str, Any] = json.loads(done.stdout)
    if said["wrong"] or not said["answered"]:
        raise RuntimeError(f"answers other than 202: {said['wrong']}\n{program.log.read_text()[-2000:]}")
    return said
