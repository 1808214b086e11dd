"""idle: what a process costs that has nothing to do, and how soon it is ready, with servers given and with its own."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from tocsin.bench.report import Figure, under
from tocsin.bench.servers import folder, own_servers, processor_s, running, tocsin

_STARTS: Final = 3
_IDLE_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Idle:
    """Medians and samples of one way to run. `own_share` is of one core; `whole` counts its servers in."""

    ready_s: list[float]
    resident_mb: float
    whole_mb: float
    own_share: float
    whole_share: float
    stop_s: float


def measure(seconds: float) -> list[Figure]:
    """Takes about `seconds`: two times a quiet spell, of 20 s where there is time, and the starts around them."""
    idle_s = min(_IDLE_S, max(2.0, seconds / 3))
    with folder() as where, own_servers(where / "data") as servers:
        given = _measure(where, servers.environ(), idle_s)
    with folder() as where:
        embedded = _measure(where, {}, idle_s)
    first, *later = embedded.ready_s
    return [
        under("idle_ready", "s", given.ready_s[1:], 2, stops_in_s=round(given.stop_s, 2)),
        under(
            "idle_ready_embedded", "s", later, 6, first_start_s=round(first, 2), stops_in_s=round(embedded.stop_s, 2)
        ),
        under("idle_memory", "MB", [given.resident_mb], 120, after_s=idle_s),
        under("idle_memory_embedded", "MB", [embedded.resident_mb], 120, with_servers_mb=round(embedded.whole_mb)),
        under("idle_processor", "% of a core", [given.own_share * 100], 3, over_s=idle_s),
        under(
            "idle_processor_embedded",
            "% of a core",
            [embedded.own_share * 100],
            3,
            with_servers=round(embedded.whole_share * 100, 2),
        ),
    ]


def _measure(where: Path, environ: Mapping[str, str], idle_s: float) -> Idle:
    """Starts it several times in one folder, the first time with nothing there, and watches the last one."""
    ready_s = []
    for _ in range(_STARTS):
        with running(tocsin("serve"), where, environ) as program:
            ready_s.append(program.ready())
    with running(tocsin("serve"), where, environ) as program:
        ready_s.append(program.ready())
        time.sleep(1)  # what the look at /ready has stirred up
        own = psutil.Process(program.pid)
        before, whole_before = _own_s(own), processor_s(program.pid)
        began_s = time.monotonic()
        time.sleep(idle_s)
        took_s = time.monotonic() - began_s
        own_share = (_own_s(own) - before) / took_s
        whole_share = (processor_s(program.pid) - whole_before) / took_s
        resident = own.memory_info().rss
        whole = resident + sum(_unshared(child) for child in own.children(recursive=True))
        stop_s = program.stop()
    return Idle(ready_s, resident / 1e6, whole / 1e6, own_share, whole_share, stop_s)


def _own_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _unshared(process: psutil.Process) -> int:
    """Bytes that are a process's own: Postgres's processes share most of theirs."""
    try:
        return int(process.memory_full_info().uss)
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return 0
