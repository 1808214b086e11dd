"""broadcast: one event to 100,000 people, in-app and email; and one to 1,000,000, in-app.

`tocsin http` and one process of actors, a Postgres, a Redis and, for mail, a provider of a process of its own, all on
this machine. When an entry was listed is told by Redis's clock, which is this machine's too.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from tocsin.bench import crowd
from tocsin.bench.api import Api
from tocsin.bench.bare import TEXT
from tocsin.bench.report import Figure, beside, shown, under
from tocsin.bench.sends import Provider, bare_rate, provider_running
from tocsin.bench.servers import ADMIN_KEY, Program, Servers, folder, own_servers, ready_actors, running, tocsin
from tocsin.bench.watch import Watch, thinned

_WITH_MAIL: Final = 100_000
_IN_APP: Final = 1_000_000
_CONNECTIONS: Final = 8
_LIMIT_S: Final = 900.0
_API_RATE: Final = 50
_BARE_MAILS: Final = 4_000
_TIMES: Final = (
    "select min(extract(epoch from listed_at)), max(extract(epoch from listed_at)), count(*) from notifications"
    " where id between %s and %s"
)


@dataclass(frozen=True, slots=True)
class Site:
    """Everything that runs."""

    servers: Servers
    provider: Provider
    http: Program
    actors: Program
    sender: Api
    stored: crowd.Stored
    waiting: crowd.Waiting

    def watch(self) -> Watch:
        """The memory of all."""
        pids = {
            "tocsin http": self.http.pid,
            "tocsin actors": self.actors.pid,
            "redis": self.servers.redis_pid,
            "postgres": self.servers.postgres_pid,
        }
        watch = Watch({name: (lambda pid=pid: pid) for name, pid in pids.items()})  # type: ignore[misc]
        return watch.also("redis data", self.waiting.used_mb)

    def is_stored(self, events: list[UUID], people: int, steps: int) -> bool:
        """Whether every notification, and every delivery that was planned, is in Postgres."""
        return (
            self.stored.rows("notifications", events) >= people
            and self.stored.rows("deliveries", events) >= people * steps
        )


def measure_with_mail(people: int | None = None) -> list[Figure]:
    """The 100,000. Takes as long as they take."""
    many = people or _WITH_MAIL
    with site(many) as here:
        bare = bare_rate(here.provider, "EMAIL", min(_BARE_MAILS, many), _CONNECTIONS)
        here.provider.reset()
        before = here.stored.size()
        with here.watch() as watch:
            began_s = time.time()
            events = crowd.tell_everybody(
                here.sender,
                many,
                title="Approved",
                message=TEXT,
                channels=["IN_APP", "EMAIL"],
                deliveryStrategy="BROADCAST",
            )
            crowd.until(lambda: here.is_stored(events, many, 2), _LIMIT_S, 0.25)
            stored_s = time.time() - began_s
            crowd.until(lambda: here.provider.count("EMAIL") >= many, _LIMIT_S, 0.25)
            first_s, last_s = _listed(here.stored, events)
            crowd.until(lambda: not here.waiting.facts(), _LIMIT_S, 0.25)
            all_s = time.time() - began_s
        mailed, growth = here.provider.rate("EMAIL"), _growth("broadcast_growth", here, before, many)
    return [
        under("broadcast_first_listed", "ms", [(first_s - began_s) * 1000], 200, people=many),
        under("broadcast_all_listed", "s", [last_s - began_s], 5),
        under("broadcast_stored", "s", [stored_s], 20, everything_stored_s=round(all_s, 1)),
        beside("broadcast_mailed", "mails/s", [mailed], [bare], least=0.8, notes={"at_once": _CONNECTIONS}),
        growth,
        _memory("broadcast_memory", watch),
    ]


def measure_in_app(people: int | None = None) -> list[Figure]:
    """The million. Takes as long as they take."""
    many = people or _IN_APP
    with site(many) as here:
        before_mb, before = here.waiting.used_mb(), here.stored.size()
        with here.watch() as watch, _asked(here.http) as told:
            began_s = time.time()
            events = crowd.tell_everybody(here.sender, many, channels=["IN_APP"])
            crowd.until(lambda: here.is_stored(events, many, 1), _LIMIT_S, max(0.1, many / 1e6))
            stored_s = time.time() - began_s
            first_s, last_s = _listed(here.stored, events)
        crowd.until(lambda: not here.waiting.facts() and not here.waiting.work(), _LIMIT_S, 0.25)
        after_mb, growth = here.waiting.used_mb(), _growth("broadcast_million_growth", here, before, many)
    return [
        under("broadcast_million_stored", "s", [stored_s], 120, people=many, all_listed_s=round(last_s - began_s, 1)),
        shown("broadcast_million_first_listed", "ms", [(first_s - began_s) * 1000]),
        under(
            "broadcast_million_redis",
            "MB",
            [watch.peak("redis data")],
            600,
            before=round(before_mb, 1),
            afterwards=round(after_mb, 1),
        ),
        under("broadcast_million_api", "ms", [told["p99_ms"]], 100, at=f"{_API_RATE}/s", answered=told["answered"]),
        growth,
        _memory("broadcast_million_memory", watch),
    ]


def _growth(name: str, here: Site, before: tuple[int, int], people: int) -> Figure:
    """What one person's part of the event takes of Postgres for good, and of its log on the way."""
    database, log = (after - then for after, then in zip(here.stored.size(), before, strict=True))
    return shown(name, "bytes", [database / people], of_the_log=round(log / people), people=people)


def _memory(name: str, watch: Watch) -> Figure:
    """The most that one process of ours took, with the curves of all."""
    peaks = {f"{each} MB".replace(" ", "_"): round(watch.peak(each)) for each in watch.series}
    most = max(watch.peak("tocsin http"), watch.peak("tocsin actors"))
    return Figure(name, most, 0.0, "MB", notes=peaks, series=thinned(watch.series))


def _listed(stored: crowd.Stored, events: list[UUID]) -> tuple[float, float]:
    """When the first and the last entry was listed, in seconds since 1970."""
    rows = [stored.row(_TIMES, event) for event in events]
    return float(min(row[0] for row in rows)), float(max(row[1] for row in rows))


@contextmanager
def site(people: int, *, settings: str = "", sends: bool = True) -> Iterator[Site]:
    """Everything, with so many people known; `settings` is a settings file's text, and without `sends` no provider is
    configured."""
    with ExitStack() as stack:
        where = stack.enter_context(folder())
        servers = stack.enter_context(own_servers(where / "data"))
        provider = stack.enter_context(provider_running(where))
        environ = servers.environ() | (provider.settings(_CONNECTIONS) if sends else {})
        if settings:
            (where / "own.toml").write_text(settings)
            environ["TOCSIN_SETTINGS"] = str(where / "own.toml")
        http = stack.enter_context(running(tocsin("http"), where, environ))
        http.ready()
        crowd.introduce(servers, people)
        actors = stack.enter_context(ready_actors(where, environ))
        stored, waiting = stack.enter_context(crowd.looking(servers))
        yield Site(servers, provider, http, actors, Api(http.port, ADMIN_KEY), stored, waiting)


@contextmanager
def _asked(http: Program) -> Iterator[dict[str, Any]]:
    """The API is asked meanwhile, by a process of its own; afterwards it says what came of it."""
    said: dict[str, Any] = {}
    command = [sys.executable, "-S", str(Path(__file__).parent / "load.py"), str(http.port), "16", "0", str(_API_RATE)]
    environ = {**os.environ, "TOCSIN_ADMIN_KEY": ADMIN_KEY, "LOAD_CHANNELS": "IN_APP"}
    asking = subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield said
        told, _ = asking.communicate(b"enough\n", timeout=60)
        said |= json.loads(told)
    finally:
        asking.kill()
