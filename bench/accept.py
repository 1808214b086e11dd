"""accept: how many events a second one `tocsin http` takes from 64 connections, beside the same endpoint with nothing
stored; and how long a caller waits at 200 requests a second."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from tocsin.bench.report import Figure, beside, under
from tocsin.bench.servers import ADMIN_KEY, Program, Servers, folder, own_servers, processor_s, running, tocsin

_CONNECTIONS: Final = 64
_RATE: Final = 200
_ROUNDS: Final = 3
_HERE: Final = Path(__file__).parent


def measure(seconds: float) -> list[Figure]:
    """Takes about `seconds`: half for the throughput of both, half for the latency."""
    each_s = max(1.0, seconds / 12)
    with folder() as where, own_servers(where / "data") as servers:
        given = servers.environ()
        limit_of = [str(_HERE / "nothing_stored.py")]
        with running(tocsin("http"), where, given) as ours, running(limit_of, where, given) as limit:
            ours.ready()
            limit.ready("/health")
            for program in (ours, limit):
                _load(program, 1.0)
            rates = _throughput(ours, limit, servers, each_s)
            latencies = [_load(ours, each_s * 2, _RATE) for _ in range(_ROUNDS)]
    return [rates, *_latency(latencies)]


def _throughput(ours: Program, limit: Program, servers: Servers, each_s: float) -> Figure:
    found: dict[Program, list[dict[str, Any]]] = {ours: [], limit: []}
    used = {ours: 0.0, "postgres": 0.0, "redis": 0.0}
    pids = {ours: ours.pid, "postgres": servers.postgres_pid, "redis": servers.redis_pid}
    for _ in range(_ROUNDS):
        before = {name: processor_s(pid) for name, pid in pids.items()}
        found[ours].append(_load(ours, each_s))
        used = {name: used[name] + processor_s(pid) - before[name] for name, pid in pids.items()}
        found[limit].append(_load(limit, each_s))
    shares = {("http" if name is ours else str(name)): spent / _ROUNDS / each_s for name, spent in used.items()}
    shares["client"] = statistics.median(said["client_share"] for said in found[ours])
    shares["client_at_limit"] = statistics.median(said["client_share"] for said in found[limit])
    return beside(
        "accept",
        "events/s",
        [said["rate"] for said in found[ours]],
        [said["rate"] for said in found[limit]],
        least=0.5,
        notes={f"{name}_share": round(share, 2) for name, share in shares.items()},
    )


def _latency(said: list[dict[str, Any]]) -> list[Figure]:
    longest = round(max(each["longest_ms"] for each in said), 1)
    return [
        under("accept_median", "ms", [each["median_ms"] for each in said], 10, at=f"{_RATE}/s"),
        under("accept_p99", "ms", [each["p99_ms"] for each in said], 20, at=f"{_RATE}/s", longest_ms=longest),
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
