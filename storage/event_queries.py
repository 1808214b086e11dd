"""What is asked about events: what they say, how far they are, and what became of them. Run by Postgres.call."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from peewee import SQL, fn

from tocsin.domain.delivery import OPEN, Status
from tocsin.domain.event import Event, EventStatus, Recipient
from tocsin.storage import models
from tocsin.storage.accepted_rows import CONTENT, event_of, recipients_of
from tocsin.storage.id_ranges import of_event
from tocsin.storage.models import Delivery, Notification
from tocsin.storage.moments import ms_of

_UNFINISHED: Final = (EventStatus.PENDING, EventStatus.PROCESSING)


@dataclass(frozen=True, slots=True)
class EventCounts:
    """What became of an event, as stored now."""

    notifications: int
    read: int
    deliveries: Mapping[str, int]
    """Deliveries by status."""
    by_channel: Mapping[str, Mapping[str, int]]
    """Deliveries by channel and status."""
    suppressed: Mapping[str, int]
    """Deliveries that were not to be made, by reason."""


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event and how far it is; times in ms. `expected` is how many notifications its fan-out made."""

    event: Event
    status: str
    expected: int | None
    error: str | None
    started_ms: int | None
    completed_ms: int | None
    cancelled_ms: int | None
    cancel_reason: str | None
    cancelled_by: str | None


@dataclass(frozen=True, slots=True)
class EventAudit:
    """An event with what became of it (F4). Ids that were not known are `row.event.unknown_ids`."""

    row: EventRow
    counts: EventCounts


def event_row(event: UUID) -> EventRow | None:
    """An event, once it is stored as accepted."""
    row = models.Event.get_or_none(models.Event.id == event, models.Event.accepted_at.is_null(False))
    return _row(row) if row else None


def event_audit(event: UUID) -> EventAudit | None:
    """An event with its counts, once it is stored as accepted."""
    row = event_row(event)
    return EventAudit(row, counts_of(event)) if row else None


def recent_events(limit: int, before: UUID | None = None) -> list[EventAudit]:
    """Up to `limit` events with their counts, the newest first, those before the id `before`."""
    query = models.Event.select().where(models.Event.accepted_at.is_null(False))
    if before is not None:
        query = query.where(models.Event.id < before)
    rows = [_row(row) for row in query.order_by(models.Event.id.desc()).limit(limit)]
    return [EventAudit(row, counts_of(row.event.id)) for row in rows]


def counts_of(event: UUID) -> EventCounts:
    """What became of an event, counted in its rows."""
    notifications, read = _of_event(Notification, event, fn.COUNT(SQL("1")), fn.COUNT(Notification.read_at)).get()
    grouped = _of_event(Delivery, event, Delivery.channel, Delivery.status, Delivery.reason, fn.COUNT(SQL("1")))
    statuses: Counter[str] = Counter()
    suppressed: Counter[str] = Counter()
    channels: dict[str, Counter[str]] = {}
    for channel, status, reason, count in grouped.group_by(Delivery.channel, Delivery.status, Delivery.reason):
        statuses[status] += count
        channels.setdefault(channel, Counter())[status] += count
        if status == Status.SUPPRESSED:
            suppressed[reason] += count
    return EventCounts(notifications, read, dict(statuses), channels, dict(suppressed))


def waiting_notifications(event: UUID) -> list[UUID]:
    """The notifications of an event that still have something to send, or under way."""
    query = _of_event(Delivery, event, Delivery.notification_id).where(Delivery.status.in_(list(OPEN))).distinct()
    return [notification for (notification,) in query]


def unfinished_events(
    older_than_ms: int, limit: int, after: Event | None = None, *, started: bool = True
) -> list[tuple[Event, list[Recipient]]]:
    """Up to `limit` events whose fan-out is not finished and that were accepted more than `older_than_ms` ago, the
    oldest first; those after `after`. Without `started`, only those of which nobody heard more than that."""
    statuses = list(_UNFINISHED) if started else [EventStatus.PENDING]
    age = fn.NOW() - SQL("%s * interval '1 millisecond'", [older_than_ms])
    query = models.Event.select().where(
        models.Event.status.in_(statuses),
        models.Event.accepted_at < age,
        models.Event.cancelled_at.is_null(),
    )
    if after is not None:
        place = SQL("(tocsin_time(%s), %s::uuid)", [after.accepted_ms, str(after.id)])
        query = query.where(fn.ROW(models.Event.accepted_at, models.Event.id) > place)
    rows = query.order_by(models.Event.accepted_at, models.Event.id).limit(limit)
    return [(_event(row), recipients_of(row.recipients)) for row in rows]


def contents(events: Sequence[UUID]) -> dict[UUID, Event]:
    """The events that are stored as accepted, by id."""
    query = models.Event.select().where(models.Event.id.in_(list(events)), models.Event.accepted_at.is_null(False))
    return {row.id: _event(row) for row in query}


def _of_event(model: type[Notification] | type[Delivery], event: UUID, *columns: Any) -> Any:
    first, last = of_event(event)
    return model.select(*columns).where(model.id.between(first, last), model.event_id == event).tuples()


def _row(row: models.Event) -> EventRow:
    return EventRow(
        event=_event(row),
        status=row.status,
        expected=row.expected,
        error=row.error,
        started_ms=ms_of(row.started_at),
        completed_ms=ms_of(row.completed_at),
        cancelled_ms=ms_of(row.cancelled_at),
        cancel_reason=row.cancel_reason,
        cancelled_by=row.cancelled_by,
    )


def _event(row: models.Event) -> Event:
    told = {name: getattr(row, name) for name in ("id", *CONTENT)}
    return event_of({**told, "accepted_ms": ms_of(row.accepted_at)})
