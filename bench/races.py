"""Races of a read against a step that is due, on a real Redis (S4): of two answered calls, a read before a claim or a
beginning, the second gets nothing.

    .venv/bin/python bench/races.py [--count 100000] [--kind plain|rebuild|cut|restart]

In `plain` they are in motion, in `rebuild` they are put back into motion at the same time as they are read; `cut` loses
every fiftieth reply on its way, and `restart` kills Redis and starts it again every now and then. Prints one line a
kind, and fails when something began after its read was answered.
"""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar
from uuid import UUID

import click

from tocsin.bench.servers import folder
from tocsin.domain import ids
from tocsin.domain.delivery import Channel, Status
from tocsin.domain.errors import RedisAway
from tocsin.storage.attempts import Attempts
from tocsin.storage.embedded_redis import EmbeddedRedis
from tocsin.storage.flight_parts import Claim, InboxSettings, OpenFlight, OpenStep
from tocsin.storage.flights import Flights
from tocsin.storage.keys import Keys
from tocsin.storage.redis import connect
from tocsin.storage.scripts import Scripts

KINDS: Final = ("plain", "rebuild", "cut", "restart")
_KEYS: Final = Keys("races", "races:inbox")
_TOGETHER: Final = 100
_READERS: Final = 8
_CLAIMED_AT_ONCE: Final = 5
_LEASE_MS: Final = 600_000
_LOST_REPLIES: Final = 0.02
_RESTART_EVERY: Final = 5

T = TypeVar("T")


@dataclass(slots=True)
class Score:
    """How the races of one kind ended. `broken` names what began after its read was answered."""

    races: int = 0
    began: int = 0
    stopped_at_the_beginning: int = 0
    never_claimed: int = 0
    asked_again: int = 0
    broken: list[UUID] = field(default_factory=list)


class Race:
    """Readers on one connection pool, an actor on another, of the same notifications."""

    def __init__(self, readers: Scripts, actor: Scripts, score: Score, *, restored: bool) -> None:
        self._readers = _flights(readers)
        self._restorer = _flights(actor)
        self._actor = Attempts(actor)
        self._restored = restored
        self._score = score
        self._answered: set[UUID] = set()
        self._claimed: set[UUID] = set()

    async def run(self) -> None:
        """Races for a hundred notifications."""
        event = ids.event_id(time.time_ns() // 1_000_000, os.urandom(10))
        users = {f"u{number}": ids.notification_id(event, f"u{number}") for number in range(_TOGETHER)}
        flights = [_open(event, user, note) for user, note in users.items()]
        if not self._restored:
            await self._patiently(lambda: self._restorer.restore(flights))
        waiting = list(users.items())
        random.shuffle(waiting)
        readers = [self._read(waiting) for _ in range(_READERS)]
        others = [self._restore(flights)] if self._restored else []
        reading = asyncio.gather(*readers, *others)
        while not reading.done():
            await self._claim_and_begin()
        await reading
        await self._claim_and_begin()
        self._score.races += len(users)
        self._score.never_claimed += len(set(users.values()) - self._claimed)

    async def _read(self, waiting: list[tuple[str, UUID]]) -> None:
        while waiting:
            user, note = waiting.pop()
            await self._patiently(lambda user=user, note=note: self._readers.read(user, [(note, True)]))  # type: ignore[misc]
            self._answered.add(note)

    async def _restore(self, flights: list[OpenFlight]) -> None:
        for first in range(0, len(flights), 10):
            await self._patiently(lambda first=first: self._readers.restore(flights[first : first + 10]))  # type: ignore[misc]

    async def _claim_and_begin(self) -> None:
        token, before = os.urandom(8).hex(), set(self._answered)
        claims = await self._patiently(
            lambda: self._actor.claim(
                Channel.SMS, token, _CLAIMED_AT_ONCE, lease_ms=_LEASE_MS, attempts=3, resend=False
            )
        )
        self._judge(claims, before)
        self._claimed |= {claim.notification for claim in claims}
        await asyncio.gather(*(self._begin(claim) for claim in claims))

    async def _begin(self, claim: Claim) -> None:
        before = set(self._answered)
        (may,) = await self._patiently(lambda: self._actor.begin([claim], claim.token, lease_ms=_LEASE_MS, detail={}))
        if may:
            self._judge([claim], before)
            self._score.began += 1
        else:
            self._score.stopped_at_the_beginning += 1

    def _judge(self, claims: list[Claim], answered: set[UUID]) -> None:
        self._score.broken += [claim.notification for claim in claims if claim.notification in answered]

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """The answer; a call that was not answered is made again."""
        while True:
            try:
                return await call()
            except RedisAway:
                self._score.asked_again += 1
                await asyncio.sleep(0.02)


class Cutting:
    """A way to the Unix socket at `path` on which some replies are lost together with their connection."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._chance = random.Random(1)

    @asynccontextmanager
    async def port(self) -> AsyncIterator[int]:
        """Where it listens while this lasts."""
        server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(self._path)
        there = asyncio.create_task(_copy(reader, to_server, lambda: False))
        with suppress(OSError, asyncio.CancelledError):
            await _copy(from_server, writer, lambda: self._chance.random() < _LOST_REPLIES)
        there.cancel()
        to_server.close()
        writer.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, ends: Callable[[], bool]) -> None:
    with suppress(OSError):
        while (data := await source.read(65_536)) and not ends():
            target.write(data)
            await target.drain()


async def race(server: EmbeddedRedis, url: str, kind: str, count: int) -> Score:
    """Runs about `count` races of one kind on a Redis that this may kill and start."""
    score = Score()
    cutting = Cutting(url.removeprefix("unix://"))
    async with cutting.port() as port:
        reached = f"redis://127.0.0.1:{port}" if kind == "cut" else url
        clients = [connect(reached) for _ in range(2)]
        readers, actor = (Scripts(client, _KEYS) for client in clients)
        for number in range(1, -(-count // _TOGETHER) + 1):
            running = asyncio.create_task(Race(readers, actor, score, restored=kind == "rebuild").run())
            if kind == "restart" and number % _RESTART_EVERY == 0:
                await asyncio.to_thread(_restart, server)
            await running
            await _forget(connect(url))
        for client in clients:
            await client.aclose()
    return score


def _restart(server: EmbeddedRedis) -> None:
    assert server.pid is not None  # it runs
    os.kill(server.pid, signal.SIGKILL)
    server.stop()
    server.start()


async def _forget(client: object) -> None:
    """The journal, which nobody drains here."""
    await client.delete("races:facts")  # type: ignore[attr-defined]
    await client.aclose()  # type: ignore[attr-defined]


def _flights(scripts: Scripts) -> Flights:
    """Without a client of its own: what is raced for is done by scripts alone."""
    return Flights(None, scripts, _KEYS, InboxSettings("races:inbox", cached=False, ttl_ms=60_000))


def _open(event: UUID, user: str, note: UUID) -> OpenFlight:
    """One whose SMS is due and whose email waits for its time."""
    now_ms = time.time_ns() // 1_000_000
    sms = OpenStep(1, Channel.SMS, Status.QUEUED, 1, now_ms)
    email = OpenStep(2, Channel.EMAIL, Status.SCHEDULED, 1, now_ms + _LEASE_MS)
    return OpenFlight(note, user, event, False, 0, (sms, email))


def measure(data: Path, kind: str, count: int) -> Score:
    """Runs about `count` races on a Redis of their own in `data`."""
    server = EmbeddedRedis(data)
    url = server.start()
    try:
        return asyncio.run(race(server, url, kind, count))
    finally:
        server.stop()


@click.command()
@click.option("--count", type=click.IntRange(1), default=100_000, show_default=True, help="How many of each kind.")
@click.option("--kind", "kinds", type=click.Choice(KINDS), multiple=True, default=KINDS, help="Which; all of them.")
def main(*, count: int, kinds: tuple[str, ...]) -> None:
    """Races reads against what is due."""
    broken = 0
    for kind in kinds:
        began_s = time.monotonic()
        with folder() as where:
            score = measure(where, kind, count)
        broken += len(score.broken)
        print(
            f"{kind}: {score.races} races, {score.began} began first, {score.never_claimed} were read before a claim,"
            f" {score.stopped_at_the_beginning} between claim and beginning, {score.asked_again} calls asked again;"
            f" {len(score.broken)} began after their read was answered ({time.monotonic() - began_s:.0f} s)"
        )
    if broken:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
