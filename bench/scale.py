"""scale: the same work for 1, 2 and 4 processes of actors: what grows with them, and what does not.

Three kinds of work, each from a standing start to its last row or its last mail: people routed and stored (processor
time of Python, Redis's one thread, Postgres), mails to a provider that answers at once (processor time), and mails to
one that takes 50 ms (waiting).
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tocsin.bench import crowd
from tocsin.bench.api import Api
from tocsin.bench.bare import TEXT
from tocsin.bench.report import Figure, shown
from tocsin.bench.sends import Provider, provider_running
from tocsin.bench.servers import ADMIN_KEY, folder, own_servers, processor_s, running, tocsin

_PROCESSES: Final = (1, 2, 4)
_CONNECTIONS: Final = 8
_FAR_MS: Final = 50
_PEOPLE: Final = 30_000
_MAILS: Final = 3_000
_FAR_MAILS: Final = 1_500
_LIMIT_S: Final = 600.0
_PLANNING: Final = ("fan_out", "route", "persist")
_SKIPPED: Final = 7
"""So many twentieths of the mails are not counted: by then all processes are there."""


@dataclass(frozen=True, slots=True)
class _Site:
    """What the work is done on, and the processes of each part."""

    sender: Api
    stored: crowd.Stored
    waiting: crowd.Waiting
    provider: Provider
    pids: Mapping[str, Sequence[int]]

    def ready(self, mails: int) -> None:
        """So many mails wait, and everything about them is stored."""
        crowd.tell(self.sender, mails, title="Approved", message=TEXT, channels=["EMAIL"], deliveryStrategy="BROADCAST")
        crowd.until(lambda: self.waiting.in_channel("EMAIL") >= mails and not self.waiting.facts(), _LIMIT_S)


def measure(seconds: float, people: int | None = None) -> list[Figure]:
    """Takes about `seconds` and its starts."""
    many = people or max(2_000, min(_PEOPLE, int(seconds * 500)))
    figures = []
    for processes in _PROCESSES:
        figures += _measure(processes, many, min(many, _MAILS), min(many, _FAR_MAILS))
    return figures


def _measure(processes: int, people: int, mails: int, far_mails: int) -> list[Figure]:
    with ExitStack() as stack:
        where = stack.enter_context(folder())
        servers = stack.enter_context(own_servers(where / "data"))
        provider = stack.enter_context(provider_running(where))
        environ = servers.environ() | provider.settings(_CONNECTIONS)
        http = stack.enter_context(running(tocsin("http"), where, environ))
        http.ready()
        crowd.introduce(servers, people)
        stored, waiting = stack.enter_context(crowd.looking(servers))
        with _actors(processes, where, environ, _PLANNING) as actors:
            pids = {"redis": [servers.redis_pid], "postgres": [servers.postgres_pid], "actors": actors}
            site = _Site(Api(http.port, ADMIN_KEY), stored, waiting, provider, pids)
            figures = [_stored(site, processes, people)]
            for name, count, delay_ms in (("mailed", mails, 0), ("mailed_far", far_mails, _FAR_MS)):
                site.ready(count)
                provider.reset(delay_ms)
                with _actors(processes, where, environ, ("send_email",)):
                    crowd.until(lambda: provider.count("EMAIL") >= count, _LIMIT_S)  # noqa: B023
                    crowd.until(lambda: not waiting.in_channel("EMAIL"), _LIMIT_S)
                rate = provider.rate("EMAIL", skipped=_SKIPPED)
                figures.append(shown(f"scale_{name}_{processes}", "mails/s", [rate], answers_after_ms=delay_ms))
    return figures


def _stored(site: _Site, processes: int, people: int) -> Figure:
    before_s = {name: processor_s(*pids) for name, pids in site.pids.items()}
    began_s = time.time()
    events = crowd.tell_everybody(site.sender, people, channels=["IN_APP"])
    crowd.until(lambda: site.stored.rows("deliveries", events) >= people, _LIMIT_S, 0.1)
    took_s = time.time() - began_s
    used = {name: (processor_s(*pids) - before_s[name]) / took_s for name, pids in site.pids.items()}
    cores = {f"cores_of_{name}": round(share, 2) for name, share in used.items()}
    return shown(f"scale_stored_{processes}", "people/s", [people / took_s], **cores)


@contextmanager
def _actors(processes: int, where: Path, environ: Mapping[str, str], queues: Sequence[str]) -> Iterator[list[int]]:
    """Processes of actors that start at the same time; their ids."""
    with ExitStack() as stack:
        command = tocsin("actors", "--queues", ",".join(queues))
        programs = [stack.enter_context(running(command, where, environ)) for _ in range(processes)]
        for program in programs:
            program.ready("/health")
        yield [program.pid for program in programs]
