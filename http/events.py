"""Events: what was posted, how far it is and what became of it (F4), and stopping what has not gone out."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import StringConstraints

from tocsin.domain.delivery import Channel, Status
from tocsin.domain.errors import NotFound
from tocsin.domain.event import EventStatus, Source
from tocsin.domain.plan import Priority, Strategy
from tocsin.http.caller import SENDERS, VIEWERS
from tocsin.http.cursors import id_of, page_of
from tocsin.http.endpoint import Call, Endpoint
from tocsin.http.problems import BAD_CURSOR
from tocsin.http.shapes import Answer, Asked, Line, Listing, Moment, NoQuery, Paging
from tocsin.storage import queries
from tocsin.storage.queries import EventAudit

_NO_REASON: Final = "withdrawn by its sender"


class PlannedStep(Answer):
    """One step of the event's policy version, and when it starts, counted from the start of the notification."""

    channel: Channel
    after_ms: int


class Counts(Answer):
    """What became of an event, as stored now."""

    recipients: int
    unknown: int
    notifications: int
    read: int
    deliveries: dict[Status, int]
    by_channel: dict[Channel, dict[Status, int]]
    suppressed: dict[str, int]
    """Deliveries that were not to be made, by reason."""


class Event(Answer):
    """An event with its counts."""

    id: UUID
    type: str
    status: EventStatus
    source: Source
    title: str | None
    message: str
    metadata: dict[str, Any]
    channels: tuple[Channel, ...]
    delivery_strategy: Strategy
    asked_strategy: Strategy | None
    notification_priority: Priority
    policy: str
    steps: tuple[PlannedStep, ...]
    sender: str
    correlation_id: str
    accepted_at: Moment
    started_at: Moment | None
    completed_at: Moment | None
    cancelled_at: Moment | None
    cancel_reason: str | None
    cancelled_by: str | None
    error: str | None
    counts: Counts
    unknown_ids: tuple[str, ...]


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
    return Events(data=tuple(map(_shown, page)), next_cursor=after)


async def get_event(call: Call[None, NoQuery]) -> Event:
    """An event with what became of it until now."""
    event = call.id("event")
    await call.context.store.caught_up()
    found = await call.context.store.postgres.call(queries.event_audit, event)
    if found is None:
        raise NotFound
    return _shown(found)


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


def _shown(found: EventAudit) -> Event:
    row, event = found.row, found.row.event
    return Event(
        id=event.id,
        type=event.type,
        status=EventStatus(row.status),
        source=event.source,
        title=event.title,
        message=event.message,
        metadata=event.metadata,
        channels=event.channels,
        delivery_strategy=event.strategy,
        asked_strategy=event.asked_strategy,
        notification_priority=event.priority,
        policy=event.policy,
        steps=tuple(PlannedStep(channel=step.channel, after_ms=step.after_ms) for step in event.steps),
        sender=event.sender,
        correlation_id=event.cid,
        accepted_at=event.accepted_ms,
        started_at=row.started_ms,
        completed_at=row.completed_ms,
        cancelled_at=row.cancelled_ms,
        cancel_reason=row.cancel_reason,
        cancelled_by=row.cancelled_by,
        error=row.error,
        counts=_counts(found),
        unknown_ids=event.unknown_ids,
    )


def _counts(found: EventAudit) -> Counts:
    counts = found.counts
    return Counts(
        recipients=found.row.event.recipient_count,
        unknown=len(found.row.event.unknown_ids),
        notifications=counts.notifications,
        read=counts.read,
        deliveries={Status(status): count for status, count in counts.deliveries.items()},
        by_channel={
            Channel(channel): {Status(status): count for status, count in statuses.items()}
            for channel, statuses in counts.by_channel.items()
        },
        suppressed=dict(counts.suppressed),
    )


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
