"""Events: what was posted, how far it is and what became of it (F4), and stopping what has not gone out."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import StringConstraints

from tocsin.domain.errors import NotFound
from tocsin.http.caller import SENDERS, VIEWERS
from tocsin.http.cursors import id_of, page_of
from tocsin.http.endpoint import Call, Endpoint
from tocsin.http.event_shapes import Event, shown
from tocsin.http.problems import BAD_CURSOR
from tocsin.http.shapes import Answer, Asked, Line, Listing, NoQuery, Paging
from tocsin.storage import queries

_NO_REASON: Final = "withdrawn by its sender"
_SOON_STORED: Final = 10
"""How many journal entries whoever asks waits for: what the next batch stores, or the one after it."""


class Events(Listing[Event]):
    """A page of events, the newest first."""


class CancelEvent(Asked):
    """Why an event is stopped."""

    reason: Annotated[Line, StringConstraints(max_length=500)] | None = None


class Cancelled(Answer):
    """The event is stopped; so many deliveries were waiting and will not be made."""

    success: Literal[True] = True
    id: UUID
    cancelled_count: int


async def list_events(call: Call[None, Paging]) -> Events:
    """The newest events with their counts."""
    query = call.query
    before = id_of(query.cursor) if query.cursor else None
    found = await call.context.store.postgres.call(queries.recent_events, query.limit + 1, before)
    page, after = page_of(found, query.limit, lambda last: last.row.event.id)
    return Events(data=tuple(map(shown, page)), next_cursor=after)


async def get_event(call: Call[None, NoQuery]) -> Event:
    """An event with what became of it until now. While much is under way it is what is stored now."""
    event = call.id("event")
    await call.context.store.caught_up(most_behind=_SOON_STORED)
    found = await call.context.store.postgres.call(queries.event_audit, event)
    if found is None:
        raise NotFound
    return shown(found)


async def cancel_event(call: Call[CancelEvent | None, NoQuery]) -> Cancelled:
    """Nothing of the event that has not gone out will. What was sent stays sent; cancelling twice changes nothing."""
    event, store = call.id("event"), call.context.store
    await _must_exist(call, event)
    reason = (call.body.reason if call.body else None) or _NO_REASON
    count = await store.cancel(event, reason, call.caller.name, time.time_ns() // 1_000_000)
    return Cancelled(id=event, cancelled_count=count)


async def _must_exist(call: Call[Any, NoQuery], event: UUID) -> None:
    store = call.context.store
    if await store.flights.event(event) is None and await store.postgres.call(queries.event_row, event) is None:
        raise NotFound


_TAG: Final = "events"

ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path="/api/events",
        handler=list_events,
        summary="The newest events",
        tag=_TAG,
        who=VIEWERS,
        query=Paging,
        answer=Events,
        problems=(BAD_CURSOR,),
    ),
    Endpoint(
        method="GET",
        path="/api/events/{event}",
        handler=get_event,
        summary="One event with its counts",
        tag=_TAG,
        who=VIEWERS,
        answer=Event,
    ),
    Endpoint(
        method="POST",
        path="/api/events/{event}/cancel",
        handler=cancel_event,
        summary="Stop what has not gone out",
        tag=_TAG,
        who=SENDERS,
        body=CancelEvent,
        body_optional=True,
        answer=Cancelled,
    ),
)
