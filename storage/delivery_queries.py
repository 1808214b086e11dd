"""What is asked about deliveries: where they stand and how they came there. Run by Postgres.call."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final
from uuid import UUID

from tocsin.domain import ids
from tocsin.domain.delivery import RANK, Channel, Fact, History, Status, parse_key
from tocsin.storage.id_ranges import first_of, of_event
from tocsin.storage.models import Delivery, Event, Notification
from tocsin.storage.moments import ms_of

_EVENT_ID_VERSION: Final = 7
_DERIVED_ID_VERSION: Final = 8
_WEEK_MS: Final = 7 * 86_400_000
_OF_EVENT: Final = (
    *(Event.type, Event.title, Event.message, Event.priority, Event.steps),
    *(Event.accepted_at, Event.cancelled_at),
)


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """A delivery as it stands; times in ms. What is not known yet, such as the user of a delivery whose receipt came
    first, is None."""

    id: UUID
    notification_id: UUID
    event_id: UUID | None
    user_id: str | None
    step: int
    channel: str
    status: str
    reason: str | None
    attempt_count: int
    max_attempts: int | None
    address: str | None
    scheduled_ms: int | None
    queued_ms: int | None
    last_attempted_ms: int | None
    next_attempt_ms: int | None
    sent_ms: int | None
    delivered_ms: int | None
    provider: str | None
    provider_id: str | None
    provider_status: str | None
    error_code: str | None
    error_message: str | None
    price: str | None
    segments: int | None


@dataclass(frozen=True, slots=True)
class NotificationRow:
    """A notification with what its event says; times in ms. `accepted_ms` is when the event was accepted."""

    id: UUID
    event_id: UUID
    user_id: str
    cid: str | None
    type: str
    title: str | None
    message: str
    priority: str
    accepted_ms: int
    routed_ms: int | None
    listed_ms: int | None
    read_ms: int | None
    cancelled_ms: int | None
    """When the whole event was withdrawn."""


@dataclass(frozen=True, slots=True)
class NotificationStatus:
    """A notification and where each of its deliveries stands, in the order of its plan."""

    notification: NotificationRow
    deliveries: tuple[DeliveryRow, ...]


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened to a notification. `what` is a status of a delivery; ACCEPTED, LISTED and READ, and
    CANCELLED without a delivery, concern the whole. `fact` is what is known beside (domain/delivery.py `Fact`)."""

    at_ms: int
    what: str
    delivery_id: UUID | None = None
    step: int | None = None
    channel: str | None = None
    attempt: int | None = None
    word: str | None = None
    """The provider's own status word."""
    fact: Fact | None = None


@dataclass(frozen=True, slots=True)
class Journey:
    """A notification, its deliveries and everything that happened, in the order of time."""

    notification: NotificationRow
    deliveries: tuple[DeliveryRow, ...]
    happenings: tuple[Happening, ...]


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Which deliveries; all of what is given must hold. `reference` is the id of an event, notification or delivery, or
    one that a provider gave. Times are those of the event, in ms. `before` is the id after which a page goes on."""

    user: str | None = None
    reference: str | None = None
    status: str | None = None
    channel: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    before: UUID | None = None


def delivery(identifier: UUID) -> DeliveryRow | None:
    """One delivery."""
    row = Delivery.get_or_none(Delivery.id == identifier)
    return _row(row) if row else None


def history_of(identifier: UUID) -> History | None:
    """Everything known of one delivery."""
    row = Delivery.select(Delivery.history).where(Delivery.id == identifier).first()
    return dict(row.history) if row else None


def delivery_status(notification: UUID) -> NotificationStatus | None:
    """A notification and its deliveries; None where it is not known."""
    row = _notification(notification)
    if row is None:
        return None
    return NotificationStatus(_note(row), tuple(_row(each) for each in _deliveries_of(row)))


def journey(notification: UUID) -> Journey | None:
    """Everything that happened to a notification; None where it is not known."""
    found = _notification(notification)
    if found is None:
        return None
    note, rows = _note(found), _deliveries_of(found)
    happenings = [*_of_the_whole(note), *(happening for row in rows for happening in _of_delivery(row))]
    happenings.sort(key=lambda each: (each.at_ms, each.attempt or 0, each.step or 0, _rank(each)))
    return Journey(note, tuple(map(_row, rows)), tuple(happenings))


def deliveries(wanted: DeliveryFilter, limit: int) -> list[DeliveryRow]:
    """Up to `limit` deliveries, those of the newest events first. Without a user or a reference they are of the last
    seven days, or of the seven before `to_ms`: there is no index for everything that ever had a status."""
    query = Delivery.select().order_by(Delivery.id.desc()).limit(limit)
    for condition in _conditions(wanted):
        query = query.where(condition)
    return [_row(row) for row in query]


def notification_row(notification: UUID) -> NotificationRow | None:
    """A notification with what its event says; None until both are known."""
    row = _notification(notification)
    return _note(row) if row else None


def _notification(identifier: UUID) -> Any:
    """A notification with what is asked of its event; None until both are known."""
    return (
        Notification.select(Notification, *_OF_EVENT)
        .join(Event, on=(Event.id == Notification.event_id), attr="event")
        .where(Notification.id == identifier, Event.accepted_at.is_null(False))
        .first()
    )


def _note(row: Any) -> NotificationRow:
    return NotificationRow(
        id=row.id,
        event_id=row.event_id,
        user_id=row.user_id,
        cid=row.cid,
        type=row.event.type,
        title=row.event.title,
        message=row.event.message,
        priority=row.event.priority,
        accepted_ms=ms_of(row.event.accepted_at),
        routed_ms=ms_of(row.routed_at),
        listed_ms=ms_of(row.listed_at),
        read_ms=ms_of(row.read_at),
        cancelled_ms=ms_of(row.event.cancelled_at),
    )


def _deliveries_of(note: Any) -> Sequence[Delivery]:
    return list(Delivery.select().where(Delivery.id.in_(_planned(note))).order_by(Delivery.step, Delivery.id))


def _planned(note: Any) -> list[UUID]:
    """The ids that a notification's deliveries can have: each is derived from a step and its channel. By them, rather
    than by an index of their own, the rows are found, and in one partition."""
    numbers = range(1, len(note.event.steps) + 1)
    return [ids.delivery_id(note.id, number, channel) for number in numbers for channel in Channel]


def _rank(happening: Happening) -> int:
    """What a delivery came to within one millisecond, in its order."""
    return RANK[Status(happening.what)] if happening.delivery_id else 0


def _of_the_whole(note: NotificationRow) -> list[Happening]:
    times = (
        ("ACCEPTED", note.accepted_ms),
        ("LISTED", note.listed_ms),
        ("READ", note.read_ms),
        (Status.CANCELLED, note.cancelled_ms),
    )
    return [Happening(at_ms, what) for what, at_ms in times if at_ms is not None]


def _of_delivery(row: Delivery) -> list[Happening]:
    found = []
    for place, fact in row.history.items():
        attempt, status, word = parse_key(place)
        word = word or fact.get("word")
        found.append(Happening(fact["at"], status, row.id, row.step, row.channel, attempt, word, fact))
    return found


def _conditions(wanted: DeliveryFilter) -> list[Any]:
    found: list[Any] = []
    if wanted.reference is not None:
        found.append(_refers(wanted.reference))
    if wanted.user is not None:
        found.append(Delivery.user_id == wanted.user)
    if wanted.status is not None:
        found.append(Delivery.status == wanted.status)
    if wanted.channel is not None:
        found.append(Delivery.channel == wanted.channel)
    if wanted.to_ms is not None:
        found.append(Delivery.id < first_of(wanted.to_ms))
    if (from_ms := _from_ms(wanted)) is not None:
        found.append(Delivery.id >= first_of(from_ms))
    if wanted.before is not None:
        found.append(Delivery.id < wanted.before)
    return found


def _from_ms(wanted: DeliveryFilter) -> int | None:
    if wanted.from_ms is not None or wanted.reference is not None or wanted.user is not None:
        return wanted.from_ms
    return (wanted.to_ms or time.time_ns() // 1_000_000) - _WEEK_MS


def _refers(reference: str) -> Any:
    try:
        identifier = UUID(reference)
    except ValueError:
        return Delivery.provider_id == reference
    if identifier.version == _EVENT_ID_VERSION:
        first, last = of_event(identifier)
        return Delivery.id.between(first, last) & (Delivery.event_id == identifier)
    if identifier.version == _DERIVED_ID_VERSION:
        note = _notification(identifier)
        return Delivery.id.in_([identifier, *(_planned(note) if note else ())])
    return Delivery.provider_id == reference


_SAME_NAME: Final = [field.name for field in fields(DeliveryRow) if not field.name.endswith("_ms")]


def _row(row: Delivery) -> DeliveryRow:
    return DeliveryRow(
        **{name: getattr(row, name) for name in _SAME_NAME},
        scheduled_ms=ms_of(row.scheduled_for),
        queued_ms=ms_of(row.queued_at),
        last_attempted_ms=ms_of(row.last_attempted_at),
        next_attempt_ms=ms_of(row.next_attempt_at),
        sent_ms=ms_of(row.sent_at),
        delivered_ms=ms_of(row.delivered_at),
    )
