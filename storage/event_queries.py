"""What is asked about events: what they say, how far they are, and what became of them. Run by Postgres.call."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from peewee import SQL, fn

from tocsin.domain.event import Event, EventStatus, Recipient
from tocsin.storage import models
from tocsin.storage.accepted_rows import CONTENT, event_of, recipients_of
from tocsin.storage.counts import EventCounts, counts_of
from tocsin.storage.database import cursor
from tocsin.storage.moments import ms_of

_GIVEN: Final = """
select event.id, person from events event
cross join lateral jsonb_array_elements(event.recipients) as given (person)
where event.id = any(%s::uuid[]) and (event.id, person ->> 'id') in (
  select id, name from unnest(%s::uuid[], %s::text[]) as wanted (id, name))
"""

# Who the recipients are may be long, and nobody asks it of an event as a whole.
_AUDITED: Final = tuple(field for field in models.Event._meta.sorted_fields if field.name != "recipients")

_UNFINISHED: Final = (EventStatus.PENDING, EventStatus.PROCESSING)


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event and how far it is; times in ms. `expected` is how many notifications its fan-out made."""

    event: Event
    status: str
    expected: int | None
    matched: int | None
    """How many people were found until now."""
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
    query = models.Event.select(*_AUDITED).where(models.Event.id == event, models.Event.accepted_at.is_null(False))
    row = query.first()
    return _row(row) if row else None


def event_audit(event: UUID) -> EventAudit | None:
    """An event with its counts, once it is stored as accepted."""
    row = event_row(event)
    return EventAudit(row, counts_of([event])[event]) if row else None


def recent_events(limit: int, before: UUID | None = None, key: str | None = None) -> list[EventAudit]:
    """Up to `limit` events with their counts, the newest first, those before the id `before`; with `key` those that
    were posted with it."""
    query = models.Event.select(*_AUDITED).where(models.Event.accepted_at.is_null(False))
    if before is not None:
        query = query.where(models.Event.id < before)
    if key is not None:
        query = query.where(models.Event.event_key == key)
    rows = [_row(row) for row in query.order_by(models.Event.id.desc()).limit(limit)]
    counts = counts_of([row.event.id for row in rows])
    return [EventAudit(row, counts[row.event.id]) for row in rows]


def unfinished_events(
    older_than_ms: int, limit: int, after: Event | None = None, *, started: bool = True
) -> list[tuple[Event, list[Recipient]]]:
    """Up to `limit` events whose fan-out is not finished and that were accepted more than `older_than_ms` ago, the
    oldest first; those after `after`. Without `started`, only those of which nobody heard more than that. One that was
    withdrawn is among them: its notifications are still to be made, with nothing to send."""
    statuses = list(_UNFINISHED) if started else [EventStatus.PENDING]
    age = fn.NOW() - SQL("%s * interval '1 millisecond'", [older_than_ms])
    query = models.Event.select().where(
        models.Event.status.in_(statuses),
        # One that was accepted later than now comes from a process whose clock is ahead: it may not wait for that time.
        (models.Event.accepted_at < age) | (models.Event.accepted_at > fn.NOW()),
    )
    if after is not None:
        place = SQL("(tocsin_time(%s), %s::uuid)", [after.accepted_ms, str(after.id)])
        query = query.where(fn.ROW(models.Event.accepted_at, models.Event.id) > place)
    rows = query.order_by(models.Event.accepted_at, models.Event.id).limit(limit)
    return [(_event(row), recipients_of(row.recipients)) for row in rows]


def still_unfinished(events: Sequence[UUID]) -> set[UUID]:
    """Of events those whose fan-out is not finished."""
    query = models.Event.select(models.Event.id).where(
        models.Event.id.in_(list(events)), models.Event.status.in_(list(_UNFINISHED))
    )
    return {row.id for row in query}


def withdrawn(events: Sequence[UUID]) -> list[UUID]:
    """Of events those that were withdrawn."""
    query = models.Event.select(models.Event.id).where(
        models.Event.id.in_(list(events)), models.Event.cancelled_at.is_null(False)
    )
    return [row.id for row in query]


def contents(events: Sequence[UUID]) -> dict[UUID, Event]:
    """The events that are stored as accepted, by id."""
    query = models.Event.select().where(models.Event.id.in_(list(events)), models.Event.accepted_at.is_null(False))
    return {row.id: _event(row) for row in query}


def given_inline(wanted: Sequence[tuple[UUID, str]]) -> dict[tuple[UUID, str], Recipient | None]:
    """What callers gave inline of each (event, user), None for nothing; one whose event is not stored is left out."""
    events = [str(event) for event, _ in wanted]
    with cursor() as query:
        query.execute("select id from events where id = any(%s::uuid[]) and accepted_at is not null", (events,))
        stored = {event for (event,) in query.fetchall()}
        query.execute(_GIVEN, (events, events, [user for _, user in wanted]))
        people = [(event, Recipient.model_validate(person)) for event, person in query.fetchall()]
    nothing: dict[tuple[UUID, str], Recipient | None] = {place: None for place in wanted if place[0] in stored}
    return nothing | {(event, person.id): person for event, person in people if person.inline}


def _row(row: models.Event) -> EventRow:
    return EventRow(
        event=_event(row),
        status=row.status,
        expected=row.expected,
        matched=row.matched,
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
