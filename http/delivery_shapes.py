"""How deliveries, notifications and their journeys are shown."""

from __future__ import annotations

from typing import Final, Literal
from uuid import UUID

from tocsin.domain.delivery import Channel, Status
from tocsin.domain.plan import Priority
from tocsin.http.shapes import Answer, Listing, Moment
from tocsin.storage.queries import DeliveryRow, Happening, Journey, NotificationRow, NotificationStatus

_WENT_WRONG: Final = frozenset({Status.FAILED, Status.DEAD, Status.BOUNCED})


class Delivery(Answer):
    """One notification on one channel: one step of its plan (T1)."""

    id: UUID
    notification_id: UUID
    event_id: UUID | None
    recipient_id: str | None
    step: int
    channel: Channel
    status: Status
    reason: str | None
    attempt_count: int
    max_attempts: int | None
    address: str | None
    scheduled_for: Moment | None
    queued_at: Moment | None
    last_attempt_at: Moment | None
    next_attempt_at: Moment | None
    sent_at: Moment | None
    delivered_at: Moment | None
    provider: str | None
    provider_id: str | None
    provider_status: str | None
    error: str | None
    error_code: str | None
    price: str | None
    segments: int | None


class Deliveries(Listing[Delivery]):
    """A page of deliveries, those of the newest events first."""


class Notification(Answer):
    """An event for one user."""

    id: UUID
    event_id: UUID
    recipient_id: str
    type: str
    title: str | None
    message: str
    priority: Priority
    read: bool
    read_at: Moment | None
    created_at: Moment
    listed_at: Moment | None
    cancelled_at: Moment | None
    correlation_id: str | None


class DeliveryStatus(Answer):
    """A notification and where each of its deliveries stands, in the order of its plan."""

    notification: Notification
    deliveries: tuple[Delivery, ...]


class JourneyStep(Answer):
    """One thing that happened. `what` is a status of a delivery; or ACCEPTED, LISTED, READ, CANCELLED of the whole.
    What a person or a look-up settled says by whom, how it was found out, and how sure and how near in time it is."""

    at: Moment
    what: Status | Literal["ACCEPTED", "LISTED", "READ"]
    delivery_id: UUID | None
    step: int | None
    channel: Channel | None
    attempt: int | None
    reason: str | None
    provider: str | None
    provider_id: str | None
    provider_status: str | None
    error: str | None
    error_code: str | None
    due_at: Moment | None
    by: str | None
    note: str | None
    method: str | None
    confidence: str | None
    difference_ms: int | None
    correlation_id: str | None


class NotificationJourney(DeliveryStatus):
    """Everything that happened to a notification, across its channels, in the order of time (T4)."""

    journey: tuple[JourneyStep, ...]


def delivery_of(row: DeliveryRow) -> Delivery:
    """A delivery, as shown. `error` says why it did not go out: the provider's words, else our reason."""
    failed = Status(row.status) in _WENT_WRONG
    return Delivery(
        id=row.id,
        notification_id=row.notification_id,
        event_id=row.event_id,
        recipient_id=row.user_id,
        step=row.step,
        channel=Channel(row.channel),
        status=Status(row.status),
        reason=row.reason,
        attempt_count=row.attempt_count,
        max_attempts=row.max_attempts,
        address=row.address,
        scheduled_for=row.scheduled_ms,
        queued_at=row.queued_ms,
        last_attempt_at=row.last_attempted_ms,
        next_attempt_at=row.next_attempt_ms,
        sent_at=row.sent_ms,
        delivered_at=row.delivered_ms,
        provider=row.provider,
        provider_id=row.provider_id,
        provider_status=row.provider_status,
        error=row.error_message or (row.reason if failed else None),
        error_code=row.error_code,
        price=row.price,
        segments=row.segments,
    )


def notification_of(row: NotificationRow) -> Notification:
    """A notification, as shown."""
    return Notification(
        id=row.id,
        event_id=row.event_id,
        recipient_id=row.user_id,
        type=row.type,
        title=row.title,
        message=row.message,
        priority=Priority(row.priority),
        read=row.read_ms is not None,
        read_at=row.read_ms,
        created_at=row.accepted_ms,
        listed_at=row.listed_ms,
        cancelled_at=row.cancelled_ms,
        correlation_id=row.cid,
    )


def status_of(found: NotificationStatus) -> DeliveryStatus:
    """A notification with its deliveries, as shown."""
    return DeliveryStatus(
        notification=notification_of(found.notification), deliveries=tuple(map(delivery_of, found.deliveries))
    )


def journey_of(found: Journey) -> NotificationJourney:
    """A journey, as shown."""
    return NotificationJourney(
        notification=notification_of(found.notification),
        deliveries=tuple(map(delivery_of, found.deliveries)),
        journey=tuple(map(_step_of, found.happenings)),
    )


def _step_of(happening: Happening) -> JourneyStep:
    fact = happening.fact or {}
    return JourneyStep(
        at=happening.at_ms,
        what=happening.what,
        delivery_id=happening.delivery_id,
        step=happening.step,
        channel=Channel(happening.channel) if happening.channel else None,
        attempt=happening.attempt,
        reason=fact.get("reason"),
        provider=fact.get("provider"),
        provider_id=fact.get("provider_id"),
        provider_status=happening.word,
        error=fact.get("message"),
        error_code=fact.get("code"),
        due_at=fact.get("due"),
        by=fact.get("by"),
        note=fact.get("note"),
        method=fact.get("method"),
        confidence=fact.get("confidence"),
        difference_ms=fact.get("difference"),
        correlation_id=fact.get("cid"),
    )
