"""Stopping events: at once by marks that every script honours (storage/stops.py), rows after it page by page (S7).

What is asked is told to the journal in the same step and kept in Postgres with the place where it goes on, so that it
comes to its end whoever dies on the way: whoever was asked begins, and a job goes on with what took too long. All of it
may be done twice. Used by http/cancelling.py and jobs.py.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final
from uuid import UUID, uuid4

from loguru import logger

from tocsin.domain.errors import PostgresAway, Unavailable
from tocsin.storage import cancellations
from tocsin.storage.cancellations import DONE, RUNNING, Cancellation, Wanted
from tocsin.storage.scripts import MOST_ITEMS
from tocsin.storage.store import Store

_HELD_MS: Final = 30_000
_AT_ONCE_S: Final = 2.0
_A_TURN_S: Final = 10.0
_WAITS_MS: Final = 5_000
"""How long one that has to wait for something is left alone, so that others come first."""
_PAGE: Final = 1_000
_NIL: Final = str(UUID(int=0))


async def start(store: Store, wanted: Wanted, reason: str, by: str, cid: str) -> Cancellation:
    """Stops what is wanted and has begun by now, and does what it can of the rest within two seconds. With Postgres
    away it is stopped all the same; the rest follows when Postgres has heard of it. Raises RedisAway and Overloaded."""
    now_ms = time.time_ns() // 1_000_000
    if not wanted.events:
        until_ms = now_ms + 1 if wanted.to_ms is None else min(wanted.to_ms, now_ms + 1)
        wanted = Wanted(type=wanted.type, user=wanted.user, from_ms=wanted.from_ms, to_ms=until_ms)
    place = "rows" if wanted.events or wanted.user is not None else "unfinished"
    asked = Cancellation(uuid4(), now_ms, by, cid, reason, wanted, place=place, events=len(wanted.events))
    await store.stops.begin(asked)
    try:
        await store.postgres.call(cancellations.begin, asked, _HELD_MS)
    except PostgresAway:
        # The journal tells it (gathered.py).
        return asked
    await _work(store, asked, time.monotonic() + _AT_ONCE_S)
    return asked


async def go_on(store: Store) -> None:
    """Goes on with what others began, for about ten seconds. Raises Unavailable."""
    until_s = time.monotonic() + _A_TURN_S
    while time.monotonic() < until_s:
        asked = await store.postgres.call(cancellations.take, _HELD_MS)
        if asked is None:
            await _let_go_of_ended(store)
            return
        # Redis may have been lost.
        await store.stops.hold(asked)
        await _work(store, asked, until_s)
        if asked.status != RUNNING:
            logger.info("cancellation {} is done: {} deliveries will not be made", asked.id, asked.deliveries)


async def _let_go_of_ended(store: Store) -> None:
    """Filters that hold though all is done: whoever was to let go of them died, or this is an older Redis."""
    if held := await store.stops.held():
        for identifier in await store.postgres.call(cancellations.ended, held):
            await store.stops.let_go(identifier)


async def _work(store: Store, asked: Cancellation, until_s: float) -> None:
    """Works on it until it is done, or cannot go on now, or `until_s` by the monotonic clock."""
    waits_ms = 0
    try:
        while asked.status == RUNNING and not waits_ms and time.monotonic() < until_s:
            waits_ms = 0 if await _STAGES[_stage(asked)](store, asked) else _WAITS_MS
            await store.postgres.call(cancellations.keep, asked, _HELD_MS)
    except Unavailable as error:
        waits_ms = _WAITS_MS
        logger.warning("cancellation {} goes on later: {}", asked.id, error)
    with suppress(Unavailable):
        await store.postgres.call(cancellations.keep, asked, waits_ms)


def _stage(asked: Cancellation) -> str:
    return asked.place.partition(":")[0]


def _after(asked: Cancellation) -> str:
    return asked.place.partition(":")[2] or _NIL


# Each stage does one page; it answers False where it has to wait for something.


async def _named(store: Store, asked: Cancellation) -> bool:
    """What an event with the same key replaces (storage/event_keys.py)."""
    await _mark(store, asked, asked.wanted.events)
    asked.events, asked.place = len(asked.wanted.events), "rows"
    return True


async def _unfinished(store: Store, asked: Cancellation) -> bool:
    """Each event that a filter finds gets a mark of its own; first those that are not routed yet. Postgres has to have
    heard of all of them."""
    if asked.place == "unfinished" and not await store.caught_up():
        return False
    found = await store.postgres.call(cancellations.unfinished, asked.wanted, _after(asked), MOST_ITEMS)
    await _mark(store, asked, found)
    asked.place = f"unfinished:{found[-1]}" if len(found) == MOST_ITEMS else "events"
    return True


async def _events(store: Store, asked: Cancellation) -> bool:
    found, after = await store.postgres.call(cancellations.waiting_events, asked.wanted, _after(asked), MOST_ITEMS)
    await _mark(store, asked, found)
    asked.place = f"events:{after}" if after else "rows"
    return True


async def _rows(store: Store, asked: Cancellation) -> bool:
    """What waits in Redis is ended there. Nothing more comes to wait once Postgres has heard of all there was."""
    if asked.place == "rows" and not await store.caught_up():
        return False
    event, _, after = asked.place.removeprefix("rows").removeprefix(":").partition(":")
    place = int(event or 0)
    named = asked.wanted.events
    page = await store.postgres.call(
        cancellations.waiting, asked.wanted, after or _NIL, _PAGE, named[place] if named else None
    )
    await _end(store, asked, page.notifications)
    if page.after is None:
        place += 1
    if page.after is not None or place < len(named):
        asked.place = f"rows:{place}:{page.after or ''}"
        return True
    return await _finish(store, asked)


async def _finish(store: Store, asked: Cancellation) -> bool:
    wanted = asked.wanted
    await store.caught_up()
    if not wanted.events:
        if await store.postgres.call(cancellations.unfinished, wanted, _NIL, 1):
            asked.place = "unfinished" if wanted.user is None else "rest"
            return False
        asked.events += await store.stops.let_go(asked.id)
    asked.status, asked.place, asked.ended_ms = DONE, "", time.time_ns() // 1_000_000
    return True


async def _rest(store: Store, asked: Cancellation) -> bool:
    """What is left for one person alone is held by the filter until no event is left that could have more."""
    if await store.postgres.call(cancellations.unfinished, asked.wanted, _NIL, 1):
        return False
    asked.place = "rows"
    return True


async def _mark(store: Store, asked: Cancellation, events: Sequence[UUID]) -> None:
    asked.events += await store.stops.withdraw(events, asked.reason, asked.by, asked.at_ms)


async def _end(store: Store, asked: Cancellation, notifications: Mapping[UUID, Sequence[UUID]]) -> None:
    alone = asked.wanted.user is not None
    for event, notes in notifications.items():
        for first in range(0, len(notes), MOST_ITEMS):
            some = notes[first : first + MOST_ITEMS]
            asked.deliveries += await store.flights.withdraw(event, some, alone=alone)


_STAGES: Final = {"named": _named, "unfinished": _unfinished, "events": _events, "rows": _rows, "rest": _rest}
