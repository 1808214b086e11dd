"""What Postgres says must be in motion: read page by page, after Redis was lost. Run by Postgres.call."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from tocsin.domain import ids
from tocsin.domain.delivery import Channel, History
from tocsin.domain.event import Event, Recipient
from tocsin.storage.accepted_rows import CONTENT, event_of, recipients_of
from tocsin.storage.database import cursor, database
from tocsin.storage.flight_parts import Walk
from tocsin.storage.id_ranges import of_event
from tocsin.storage.moments import ms_of

FIRST: Final = UUID(int=0)

# The statuses stand here as in the partial index deliveries_open.
_OPEN: Final = """
select delivery.id, delivery.notification_id, delivery.event_id, delivery.user_id, delivery.step, delivery.channel,
  delivery.history, delivery.scheduled_for, note.read_at, event.priority = 'CRITICAL'
from deliveries as delivery
left join notifications as note on note.id = delivery.notification_id
left join events as event on event.id = delivery.event_id
where delivery.status in ('SCHEDULED', 'QUEUED', 'RETRYING', 'SENDING')
  and delivery.id > %s and delivery.event_id is not null and delivery.user_id is not null
order by delivery.id limit %s
"""

_EVENTS: Final = (
    f"select id, {', '.join(CONTENT)}, horizon, accepted_at, recipients, cancelled_at is not null from events"  # noqa: S608
)

_UNFINISHED: Final = f"""
{_EVENTS} where status in ('PENDING', 'PROCESSING') and accepted_at is not null and id > %s order by id limit %s
"""

# What was made and that all was made are stored by different persisters: the one may be stored and the other not.
_SHORT: Final = """
select event.id from events as event
cross join lateral (
  select count(*) as made from notifications as note
  where note.id >= tocsin_first_id(event.id) and note.id <= tocsin_last_id(event.id)
    and note.event_id = event.id and note.routed_at is not null
) as counted
where event.status = 'COMPLETED' and event.accepted_at is not null and event.expected > counted.made
  and event.completed_at > %s
"""
# Asked for by itself, so that the planner sees how few events that leaves.
_SINCE: Final = """
select least((select max(drained_at) from witnesses), tocsin_time(%s)) - interval '1 minute'
"""

_NAMED: Final = """
select id, routed_at is not null, (extract(epoch from read_at) * 1000)::bigint from notifications
where id = any(%s::uuid[])
"""
_COUNTED: Final = """
select count(*) from notifications where id between %s and %s and event_id = %s::uuid and routed_at is not null
"""


@dataclass(frozen=True, slots=True)
class OpenRow:
    """A delivery that is not final; times in ms."""

    id: UUID
    notification: UUID
    event: UUID
    user: str
    step: int
    channel: Channel
    history: History
    scheduled_ms: int | None
    read_ms: int | None
    critical: bool


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event with the people it is for; of its audience how far it was read."""

    event: Event
    recipients: Sequence[Recipient]
    cancelled: bool
    horizon: str

    @property
    def walk(self) -> Walk | None:
        """How its audience goes on."""
        return Walk(len(self.recipients), self.horizon) if self.event.audience else None


@dataclass(frozen=True, slots=True)
class KnownDelivery:
    """What is known of a delivery whose notification is not stored as made."""

    notification: UUID
    step: int
    channel: Channel
    history: History


@dataclass(frozen=True, slots=True)
class Unrouted:
    """Whose notifications of an event are not stored as made: the people by notification, of those who were named; how
    many others are stored, those of its audience among them; what is known of their deliveries all the same, and when
    they read it (ms)."""

    people: Mapping[UUID, Recipient]
    routed: int
    known: Sequence[KnownDelivery]
    read_ms: Mapping[UUID, int]


def open_deliveries(after: UUID, limit: int) -> list[OpenRow]:
    """Up to `limit` deliveries that are not final, by id, those after `after`."""
    with database.atomic(), cursor() as query:
        # What belongs to a page lies together; a planner that does not see it would read all rows for each page.
        query.execute(
            "set local enable_seqscan = off; set local enable_hashjoin = off; set local enable_mergejoin = off"
        )
        query.execute(_OPEN, (after, limit))
        return [_open_row(*row) for row in query.fetchall()]


def unfinished(after: UUID, limit: int) -> list[StoredEvent]:
    """Up to `limit` events whose fan-out is not finished, by id, those after `after`."""
    return _stored_events(_UNFINISHED, (after, limit))


def short_of_notifications(lost_ms: int) -> list[UUID]:
    """Events that are stored as complete since shortly before everything else was stored, with fewer notifications."""
    with cursor() as query:
        query.execute(_SINCE, (lost_ms,))
        query.execute(_SHORT, query.fetchone())
        return [identifier for (identifier,) in query.fetchall()]


def stored_events(wanted: Iterable[UUID]) -> list[StoredEvent]:
    """The events of these ids that are stored as accepted."""
    return _stored_events(f"{_EVENTS} where id = any(%s) and accepted_at is not null", (list(wanted),))


def unrouted(stored: StoredEvent) -> Unrouted:
    """Whose notifications of an event are not stored as made."""
    event = stored.event.id
    people = {ids.notification_id(event, person.id): person for person in stored.recipients}
    ends = of_event(event)
    with cursor() as query:
        query.execute(_NAMED, (list(map(str, people)),))
        rows = query.fetchall()
        made = {note for note, is_routed, _ in rows if is_routed}
        routed = len(made)
        if stored.event.audience:
            query.execute(_COUNTED, (*map(str, ends), str(event)))
            (routed,) = query.fetchone()
        left = {note: person for note, person in people.items() if note not in made}
        read_ms = {note: int(at_ms) for note, _, at_ms in rows if note in left and at_ms is not None}
        query.execute(
            "select notification_id, step, channel, history from deliveries"
            " where id between %s and %s and event_id is null",
            ends,
        )
        known = [
            KnownDelivery(note, step, Channel(channel), history)
            for note, step, channel, history in query.fetchall()
            if note in left
        ]
    return Unrouted(left, routed, known, read_ms)


def _stored_events(statement: str, values: tuple[Any, ...]) -> list[StoredEvent]:
    with cursor() as query:
        query.execute(statement, values)
        return [_stored_event(row) for row in query.fetchall()]


def _stored_event(row: Sequence[Any]) -> StoredEvent:
    *told, horizon, accepted_at, recipients, cancelled = row
    named = dict(zip(("id", *CONTENT), told, strict=True)) | {"accepted_ms": ms_of(accepted_at)}
    return StoredEvent(event_of(named), recipients_of(recipients or []), cancelled, horizon or "")


def _open_row(
    identifier: UUID, note: UUID, event: UUID, user: str, step: int, channel: str, history: History, *more: Any
) -> OpenRow:
    scheduled_for, read_at, critical = more
    scheduled_ms, read_ms = ms_of(scheduled_for), ms_of(read_at)
    return OpenRow(
        identifier, note, event, user, step, Channel(channel), history, scheduled_ms, read_ms, bool(critical)
    )
