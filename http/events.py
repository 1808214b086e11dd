"""Events: what was posted, how far it is and what became of it (F4)."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import StringConstraints

from tocsin.domain.errors import NotFound
from tocsin.http.caller import VIEWERS
from tocsin.http.cursors import id_of, page_of
from tocsin.http.endpoint import Call, Endpoint
from tocsin.http.event_shapes import Event, shown
from tocsin.http.problems import BAD_CURSOR
from tocsin.http.shapes import Line, Listing, NoQuery, Paging
from tocsin.storage import queries

_SOON_STORED: Final = 10
"""How many journal entries whoever asks waits for: what the next batch stores, or the one after it."""


class EventQuery(Paging):
    """Which events."""

    key: Annotated[Line, StringConstraints(max_length=200)] | None = None


class Events(Listing[Event]):
    """A page of events, the newest first."""


async def list_events(call: Call[None, EventQuery]) -> Events:
    """The newest events with their counts; `?key=` those that were posted with a key, whichever of them has it now."""
    query = call.query
    before = id_of(query.cursor) if query.cursor else None
    found = await call.context.store.postgres.call(queries.recent_events, query.limit + 1, before, query.key)
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


_TAG: Final = "events"

ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path="/api/events",
        handler=list_events,
        summary="The newest events",
        tag=_TAG,
        who=VIEWERS,
        query=EventQuery,
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
)
