"""fan_out(event): makes the recipients of an event chunks to be routed, a page at a time (design §5.2)."""

from uuid import UUID

from loguru import logger

from tocsin.actors import queues
from tocsin.actors.outages import say
from tocsin.domain.errors import Unavailable
from tocsin.storage.calls import correlation
from tocsin.storage.memory import Work
from tocsin.storage.store import Store


async def fan_out(store: Store, event_id: str) -> None:
    """Goes on from where the event's cursor is, until its last page or until enough chunks are open."""
    identifier = UUID(event_id)
    try:
        await _pages(store, identifier)
    except Unavailable as error:
        say("fan-out", error)
    except Exception as error:
        logger.exception("fan-out of {} failed", event_id)
        await _back_off(store, identifier, error)


async def _pages(store: Store, identifier: UUID) -> None:
    event = await store.flights.event(identifier)
    if event is None:
        return
    correlation.set(event.cid)
    cursor, state = await store.flights.cursor(identifier), "more"
    while state in {"more", "moved"}:
        await store.memory.check(Work.PLAN)
        page = await store.flights.take_page(event, cursor)
        if page.chunk is not None:
            await store.calls.put(queues.ROUTE, "route", str(identifier), page.chunk)
        cursor, state = page.cursor, page.state


async def _back_off(store: Store, event: UUID, error: Exception) -> None:
    try:
        await store.flights.back_off(f"e:{event}", event, error=type(error).__name__)
    except Unavailable as away:
        say("fan-out", away)
