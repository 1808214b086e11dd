"""fan_out(event…): makes the recipients of events chunks to be routed, a page at a time (design §5.2).

A large event is gone on with by a queue of its own (go_on.py), so that those after it do not wait.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Final
from uuid import UUID

from loguru import logger

from tocsin.actors import queues
from tocsin.actors.first_chunks import begin
from tocsin.actors.outages import say
from tocsin.actors.walk import AudienceWalk
from tocsin.domain.errors import Unavailable
from tocsin.domain.event import Event
from tocsin.storage.calls import correlation
from tocsin.storage.flight_parts import IN_AUDIENCE, Page
from tocsin.storage.memory import Work
from tocsin.storage.scripts import Step
from tocsin.storage.store import Store

MOST_PAGES: Final = 10
"""So many chunks of an event are made here: as many as a page of its audience has."""


async def fan_out(store: Store, *event_ids: str) -> None:
    """Begins events together, and goes on with each that has more people: from where its cursor is, for some pages,
    until the last one or until enough chunks are open."""
    events = list(dict.fromkeys(map(UUID, event_ids)))
    try:
        more = await begin(store, events)
    except Unavailable as error:
        say("fan-out", error)
        return
    except Exception:
        logger.exception("{} events cannot be begun together; each is tried alone", len(events))
        more = events
    await asyncio.gather(*(watched(store, event, _pages(store, event)) for event in more))


async def watched(store: Store, event: UUID, pages: Awaitable[None]) -> None:
    """Says what stopped the fan-out of an event, and counts its failures."""
    try:
        await pages
    except Unavailable as error:
        say("fan-out", error)
    except Exception as error:
        logger.exception("fan-out of {} failed", event)
        await _back_off(store, event, error)


async def _pages(store: Store, identifier: UUID) -> None:
    found = await store.flights.to_fan_out(identifier)
    if found is None:
        return
    event, progress = found
    correlation.set(event.cid)
    walk = AudienceWalk(store, event, progress)
    cursor, state, made, calls = progress.cursor, "more", 0, list[Step]()
    try:
        # Where it "moved" another one walks, who goes on or is called again.
        while state == "more" and made < MOST_PAGES:
            await store.memory.check(Work.PLAN)
            page = await _take(store, event, cursor, walk, calls)
            calls = []
            if page.chunk is not None:
                calls = [store.calls.step(queues.ROUTE, "route", str(identifier), page.chunk, cid=event.cid)]
                made += 1
            cursor, state = page.cursor, page.state
        if state == "more":
            calls.append(call_to_go_on(store, event, cursor))
    finally:
        with suppress(Unavailable):
            await store.calls.put_all(calls)


def call_to_go_on(store: Store, event: Event, cursor: str) -> Step:
    """What has a large event gone on with from a cursor on, when those before it have had their turn."""
    return store.calls.step(queues.GO_ON, "go_on", str(event.id), cursor, cid=event.cid)


async def _take(store: Store, event: Event, cursor: str, walk: AudienceWalk, calls: Sequence[Step]) -> Page:
    """The next page; `calls` for the one before it are sent with the first word to Redis."""
    if not cursor.startswith(IN_AUDIENCE):
        return await store.flights.take_page(event, cursor, beside=calls)
    if walk.has_read(cursor):
        return await store.flights.take_page(event, cursor, await walk.following(cursor), calls)
    room = await store.flights.take_page(event, cursor, beside=calls)
    if room.state != "more":
        return room
    return await store.flights.take_page(event, cursor, await walk.following(cursor))


async def _back_off(store: Store, event: UUID, error: Exception) -> None:
    try:
        await store.flights.back_off(f"e:{event}", event, error=type(error).__name__)
    except Unavailable as away:
        say("fan-out", away)
