"""The killed run: one event to 1,000,000 recipients, whose actors are killed (SIGKILL) five times on the way.

    .venv/bin/python bench/million.py [--people 1000000] [--kills 5] [--no-keep]

Shows that the event ends COMPLETED with exact counts, in the tables and in what its audit says: a notification and a
delivery for each, none twice and none missing, each listed; how much memory each process took over time; and that Redis
is back at its starting size once the inbox lists are stored. Exits with 1 where that is not so.
"""

import random
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import click

from tocsin.bench import crowd, page
from tocsin.bench.api import Api
from tocsin.bench.report import Figure, keep, show, shown, under
from tocsin.bench.servers import ADMIN_KEY, Program, Servers, folder, own_servers, running, stop_with_us, tocsin
from tocsin.bench.watch import Watch, thinned

_ACTORS: Final = 2
_LIMIT_S: Final = 1_800.0
_MOST_LEFT_MB: Final = 16.0
"""What Redis may hold afterwards beside what it held before: the event's content, buffers, an empty journal."""
_COUNTS: Final = (
    ("notifications", "select count(*) from notifications where id between %s and %s"),
    ("people", "select count(distinct user_id) from notifications where id between %s and %s"),
    ("listed", "select count(*) from notifications where id between %s and %s and listed_at is not null"),
    ("delivered", "select count(*) from deliveries where id between %s and %s and status = 'DELIVERED'"),
    ("deliveries", "select count(*) from deliveries where id between %s and %s"),
)
_TOLD: Final = ("recipients", "expected", "routed", "listed", "delivered")


@dataclass(slots=True)
class Mortals:
    """Processes of actors, one of which is killed now and then, and another started in its place."""

    where: Path
    environ: Mapping[str, str]
    running: list[Program] = field(default_factory=list)
    killed: int = 0

    def start(self) -> None:
        program = Program(tocsin("actors"), self.where, self.environ)
        program.ready("/health")
        self.running.append(program)

    def kill_one(self, chance: random.Random) -> None:
        """Kills one in the middle of its work; the next one starts at once."""
        victim = self.running.pop(chance.randrange(len(self.running)))
        victim.kill()
        self.killed += 1
        self.start()

    def stop(self) -> None:
        for program in self.running:
            program.stop()


@click.command()
@click.option("--people", type=click.IntRange(1_000), default=1_000_000, show_default=True, help="How many recipients.")
@click.option("--kills", type=click.IntRange(0), default=5, show_default=True, help="How often one is killed.")
@click.option("--keep/--no-keep", "kept", default=True, help="Whether to write what was found to bench/results.")
def main(*, people: int, kills: int, kept: bool) -> None:
    """Posts one event to many people and kills its actors on the way."""
    stop_with_us()
    began_s = time.time()
    figures, counts = measure(people, kills)
    show(figures, f"one event to {people:,} recipients, {kills} times kill -9")
    if kept:
        print(f"kept in {keep(figures, began_s, None if people == 1_000_000 else people)}")
        if people == 1_000_000:
            page.remake()
    if wrong := [f"{name} {count}" for name, count in counts.items() if count != people]:
        sys.exit(f"not exact: {', '.join(wrong)} of {people}")
    if figures[0].notes["lists_left"]:
        sys.exit("there are inbox entries left in Redis")
    if missed := [each.name for each in figures if not each.reached]:
        sys.exit(f"missed: {', '.join(missed)}")


def measure(people: int, kills: int) -> tuple[list[Figure], dict[str, int]]:
    """The figures, and the counts that are wanted to be `people` each."""
    with ExitStack() as stack:
        where = stack.enter_context(folder())
        servers = stack.enter_context(own_servers(where / "data"))
        environ = servers.environ()
        http = stack.enter_context(running(tocsin("http"), where, environ))
        http.ready()
        crowd.introduce(servers, people)
        mortals = Mortals(where, environ)
        stack.callback(mortals.stop)
        for _ in range(_ACTORS):
            mortals.start()
        stored, waiting = stack.enter_context(crowd.looking(servers))
        _warm_up(Api(http.port, ADMIN_KEY), waiting)
        before_mb = waiting.used_mb()
        with _watch(http, servers, mortals, waiting) as watch:
            began_s = time.monotonic()
            events = crowd.tell_everybody(Api(http.port, ADMIN_KEY), people, channels=["IN_APP"])
            _kill_on_the_way(stored, events, people, mortals, kills)
            crowd.until(lambda: stored.rows("deliveries", events) >= people, _LIMIT_S, 1.0)
            crowd.until(lambda: _status(http, events) == {"COMPLETED"}, _LIMIT_S, 0.5)
            took_s = time.monotonic() - began_s
            crowd.until(lambda: not waiting.facts() and not waiting.work(), _LIMIT_S, 0.5)
            after_mb = _settled_mb(waiting, before_mb)
        counts = {name: sum(stored.value(query, event) for event in events) for name, query in _COUNTS}
        counts |= _told(http, events)
        lists_left = waiting.members("notifications:*")
    peaks = {f"{name} MB".replace(" ", "_"): round(watch.peak(name)) for name in watch.series}
    ours = max(watch.peak(name) for name in watch.series if name.startswith("tocsin"))
    return [
        shown(
            "killed_completed",
            "s",
            [took_s],
            killed=mortals.killed,
            events=len(events),
            lists_left=lists_left,
            **counts,
        ),
        under("killed_redis_left", "MB", [max(0.0, after_mb - before_mb)], _MOST_LEFT_MB, before=round(before_mb, 1)),
        Figure("killed_memory", ours, 0.0, "MB", notes=peaks, series=thinned(watch.series)),
    ], counts


def _kill_on_the_way(stored: crowd.Stored, events: Sequence[UUID], people: int, mortals: Mortals, kills: int) -> None:
    """Kills at even shares of the way, by how many rows are stored."""
    chance = random.Random(4)
    for number in range(1, kills + 1):
        share = people * number // (kills + 1)
        crowd.until(lambda: stored.rows("deliveries", events) >= share, _LIMIT_S, 0.2)  # noqa: B023
        mortals.kill_one(chance)


def _warm_up(sender: Api, waiting: crowd.Waiting) -> None:
    """What is there from the first event on is not counted as left over."""
    crowd.tell(sender, 100, channels=["IN_APP"])
    crowd.until(lambda: not waiting.facts() and not waiting.work(), _LIMIT_S)


def _settled_mb(waiting: crowd.Waiting, wanted_mb: float) -> float:
    """What Redis holds once lists that are stored are gone, which takes a moment."""
    end_s = time.monotonic() + 30
    while (now_mb := waiting.used_mb()) > wanted_mb + 1 and time.monotonic() < end_s:
        time.sleep(0.5)
    return now_mb


def _watch(http: Program, servers: Servers, mortals: Mortals, waiting: crowd.Waiting) -> Watch:
    actors = {
        f"tocsin actors {number + 1}": (lambda number=number: mortals.running[number].pid) for number in range(_ACTORS)
    }  # type: ignore[misc]
    fixed: dict[str, Any] = {"tocsin http": http.pid, "redis": servers.redis_pid, "postgres": servers.postgres_pid}
    pids = actors | {name: (lambda pid=pid: pid) for name, pid in fixed.items()}  # type: ignore[misc]
    return Watch(pids).also("redis data", waiting.used_mb)


def _told(http: Program, events: Sequence[UUID]) -> dict[str, int]:
    """What the audit of the event counts, as its sender sees it."""
    api = Api(http.port, ADMIN_KEY)
    audits = [api.ask("GET", f"/api/events/{event}")["counts"] for event in events]
    api.close()
    return {f"told_{name}": sum(audit[name] for audit in audits) for name in _TOLD}


def _status(http: Program, events: Sequence[UUID]) -> set[str]:
    api = Api(http.port, ADMIN_KEY)
    told = {str(api.ask("GET", f"/api/events/{event}")["status"]) for event in events}
    api.close()
    return told


if __name__ == "__main__":
    main()
