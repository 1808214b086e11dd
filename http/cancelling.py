"""Stopping what has not gone out: one event, or all that a filter finds, with a reason (S7)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import Field, StringConstraints
from starlette.responses import Response

from tocsin.actors import cancelling
from tocsin.domain.errors import NotFound
from tocsin.domain.setting_sources import normal_type
from tocsin.http.caller import SENDERS, VIEWERS
from tocsin.http.cursors import cursor_of, page_of, place_of
from tocsin.http.endpoint import Call, Endpoint
from tocsin.http.idempotency import once_if_known
from tocsin.http.problems import (
    BAD_CURSOR,
    BAD_USER_ID,
    INVALID_VALUE,
    MISSING_FIELD,
    NOT_FOUND,
    TOO_MANY_FILTERS,
    Problem,
)
from tocsin.http.shapes import Answer, Asked, AskedMoment, EventType, Line, Listing, Moment, NoQuery, Paging, UserId
from tocsin.storage import cancellations, queries
from tocsin.storage.cancellations import Cancellation, Wanted

_NO_REASON: Final = "withdrawn by its sender"
_MOST_NAMED: Final = 100
_SOON_STORED: Final = 10
"""How many journal entries whoever asks waits for."""

Why = Annotated[Line, StringConstraints(max_length=500)]


class CancellationStatus(StrEnum):
    """Whether all of its deliveries are ended; nothing of them starts any more in either case."""

    RUNNING = cancellations.RUNNING
    DONE = cancellations.DONE


class CancelEvent(Asked):
    """Why an event is stopped."""

    reason: Why | None = None


class CancelEvents(Asked):
    """What is to be stopped: events by id, the one with a key, or those that a filter finds and that began before now.
    With `userId` nothing but that person's notifications of them."""

    ids: Annotated[tuple[UUID, ...], Field(min_length=1, max_length=_MOST_NAMED)] | None = None
    key: Annotated[Line, StringConstraints(max_length=200)] | None = None
    type: EventType | None = None
    user_id: UserId | None = None
    from_: AskedMoment | None = Field(None, alias="from")
    to: AskedMoment | None = None
    reason: Why | None = None


class Cancelled(Answer):
    """The event is stopped. So many deliveries were waiting and will not be made; more while it is RUNNING."""

    success: Literal[True] = True
    id: UUID
    cancelled_count: int
    status: CancellationStatus
    cancellation_id: UUID


class CancellationShown(Answer):
    """What was asked to be stopped, and how far that is."""

    id: UUID
    status: CancellationStatus
    reason: str
    by: str
    at: Moment
    ended_at: Moment | None
    event_count: int
    cancelled_count: int
    ids: tuple[UUID, ...]
    type: str | None
    user_id: str | None
    from_: Moment | None = Field(alias="from")
    to: Moment | None


class Cancellations(Listing[CancellationShown]):
    """A page of cancellations, the newest first."""


async def cancel_event(call: Call[CancelEvent | None, NoQuery]) -> Cancelled:
    """Nothing of the event that has not gone out will, from the moment this is answered. What was sent stays sent;
    cancelling twice changes nothing."""
    event = call.id("event")
    await _must_exist(call, event)
    reason = (call.body.reason if call.body else None) or _NO_REASON
    done = await cancelling.start(call.context.store, Wanted((event,)), reason, call.caller.name, call.cid)
    return Cancelled(
        id=event,
        cancelled_count=done.deliveries,
        status=CancellationStatus(done.status),
        cancellation_id=done.id,
    )


async def cancel_events(call: Call[CancelEvents, NoQuery]) -> Response:
    """Stops what is named or found: once this is answered nothing of it starts any more. Where that is much, or with
    Postgres away, the answer is RUNNING: the ends of deliveries follow, whoever dies on the way, and
    `GET /api/cancellations/{cancellation}` tells how far it is. Ids that nothing has are passed over."""
    wanted = await _wanted(call)

    async def make() -> dict[str, Any]:
        store, reason = call.context.store, call.body.reason or _NO_REASON
        done = await cancelling.start(store, wanted, reason, call.caller.name, call.cid)
        return _shown(done).model_dump(mode="json")

    return Response(json.dumps(await once_if_known(call, make)), media_type="application/json")


async def list_cancellations(call: Call[None, Paging]) -> Cancellations:
    """What was asked to be stopped."""
    query = call.query
    before = place_of(query.cursor) if query.cursor else None
    found = await call.context.store.postgres.call(cancellations.cancellations, query.limit + 1, before)
    page, after = page_of(found, query.limit, lambda last: cursor_of(last.at_ms, last.id))
    return Cancellations(data=tuple(map(_shown, page)), next_cursor=after)


async def get_cancellation(call: Call[None, NoQuery]) -> CancellationShown:
    """One of them, and how far it is."""
    identifier, store = call.id("cancellation"), call.context.store
    found = await store.postgres.call(cancellations.cancellation, identifier)
    if found is None and await store.caught_up(most_behind=_SOON_STORED):
        # It was asked for while Postgres was away.
        found = await store.postgres.call(cancellations.cancellation, identifier)
    if found is None:
        raise NotFound
    return _shown(found)


async def _wanted(call: Call[CancelEvents, NoQuery]) -> Wanted:
    body = call.body
    filtered = [each for each in (body.type, body.user_id, body.from_, body.to) if each is not None]
    ways = [body.ids is not None, body.key is not None, bool(filtered)]
    if sum(ways) > 1:
        raise Problem(INVALID_VALUE, "Give ids, a key or a filter, one of them.", field="/ids")
    if not any(ways):
        raise Problem(MISSING_FIELD, "Give ids, a key, or at least one of type, userId, from and to.", field="/ids")
    if body.ids:
        return Wanted(await _known(call, sorted(set(body.ids))))
    if body.key is not None:
        holder = await call.context.store.keyed.holder_of(body.key)
        if holder is None:
            raise NotFound
        return Wanted((holder.event,))
    return Wanted((), normal_type(body.type) if body.type else None, body.user_id, body.from_, body.to)


async def _known(call: Call[Any, NoQuery], events: Sequence[UUID]) -> tuple[UUID, ...]:
    """Those that are events. With Postgres away nobody can say of some: they count, for a mark in vain does no harm."""
    store = call.context.store
    found = await store.events(events)
    known = tuple(event for event in events if event in found or store.postgres.is_away)
    if not known:
        raise NotFound
    return known


async def _must_exist(call: Call[Any, NoQuery], event: UUID) -> None:
    store = call.context.store
    if await store.flights.event(event) is None and await store.postgres.call(queries.event_row, event) is None:
        raise NotFound


def _shown(found: Cancellation) -> CancellationShown:
    wanted = found.wanted
    return CancellationShown(
        id=found.id,
        status=CancellationStatus(found.status),
        reason=found.reason,
        by=found.by,
        at=found.at_ms,
        ended_at=found.ended_ms,
        event_count=found.events,
        cancelled_count=found.deliveries,
        ids=wanted.events,
        type=wanted.type,
        user_id=wanted.user,
        from_=wanted.from_ms,
        to=wanted.to_ms,
    )


_TAG: Final = "events"

ENDPOINTS: Final = (
    Endpoint(
        method="POST",
        path="/api/events/cancel",
        handler=cancel_events,
        summary="Stop what has not gone out of many events",
        tag=_TAG,
        who=SENDERS,
        body=CancelEvents,
        answer=CancellationShown,
        problems=(BAD_USER_ID, NOT_FOUND, TOO_MANY_FILTERS),
        idempotent=True,
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
    Endpoint(
        method="GET",
        path="/api/cancellations",
        handler=list_cancellations,
        summary="What was asked to be stopped",
        tag=_TAG,
        who=VIEWERS,
        query=Paging,
        answer=Cancellations,
        problems=(BAD_CURSOR,),
    ),
    Endpoint(
        method="GET",
        path="/api/cancellations/{cancellation}",
        handler=get_cancellation,
        summary="How far stopping is",
        tag=_TAG,
        who=VIEWERS,
        answer=CancellationShown,
    ),
)
