"""How events and their counts are told (F4, T8)."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from tocsin.domain.audience import Audience
from tocsin.domain.delivery import Channel, Status
from tocsin.domain.event import EventStatus, Source
from tocsin.domain.filters import form_of
from tocsin.domain.plan import Priority, Strategy
from tocsin.http.shapes import Answer, Moment
from tocsin.storage.queries import EventAudit

_FAILED: Final = (Status.FAILED, Status.DEAD, Status.BOUNCED)


class PlannedStep(Answer):
    """One step of the event's policy version, and when it starts, counted from the start of the notification."""

    channel: Channel
    after_ms: int


class Counts(Answer):
    """What became of an event, as stored now. Each delivery is in one of sent, delivered, failed, suppressed,
    cancelled, uncertain and waiting."""

    recipients: int | None
    """Whom it is for; null until topics, filters and the like are resolved."""
    matched: int | None
    """Those found until now."""
    unknown: int
    expected: int | None
    """Notifications that there should be."""
    notifications: int
    routed: int
    """Notifications that there are."""
    missing: int | None
    """The difference: still to be made, or lost if the event is COMPLETED."""
    listed: int
    """Those in an inbox."""
    read: int
    sent: int
    """Deliveries that a provider accepted and nobody confirmed."""
    delivered: int
    failed: int
    """FAILED, DEAD and BOUNCED."""
    suppressed: dict[str, int]
    """Deliveries that were not to be made, by reason."""
    cancelled: int
    uncertain: int
    waiting: int
    """Those that may still go out."""
    difference: int | None
    """Deliveries that there should be, less those that there are."""
    deliveries: dict[Status, int]
    by_channel: dict[Channel, dict[Status, int]]


class ShownTopic(Answer):
    """The members of a topic; with `roles` those who have one of them."""

    key: str
    roles: tuple[str, ...]


class ShownAudience(Answer):
    """Whom an event is for beside the recipients that were named."""

    topics: tuple[ShownTopic, ...]
    segment: dict[str, Any] | None
    subscribers: bool
    everyone: bool


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
    key: str | None
    signature: str | None
    counts: Counts
    unknown_ids: tuple[str, ...]
    audience: ShownAudience | None


def shown(found: EventAudit) -> Event:
    """An event as it is told."""
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
        key=event.event_key,
        signature=event.signature,
        counts=counts_shown(found),
        unknown_ids=event.unknown_ids,
        audience=_audience_shown(event.audience) if event.audience else None,
    )


def _audience_shown(audience: Audience) -> ShownAudience:
    return ShownAudience(
        topics=tuple(ShownTopic(key=topic.key, roles=topic.roles) for topic in audience.topics),
        segment=form_of(audience.segment) if audience.segment else None,
        subscribers=audience.subscribers,
        everyone=audience.everyone,
    )


def _matched(found: EventAudit) -> int | None:
    """Of an audience as many as its pages had until now; at the end those who were made."""
    row = found.row
    if not row.event.audience:
        return row.event.recipient_count
    return row.matched if row.expected is None else row.expected


def counts_shown(found: EventAudit) -> Counts:
    """The counts of an event as they are told."""
    counts, event = found.counts, found.row.event
    expected = event.recipient_count if found.row.expected is None else found.row.expected
    made = counts.notifications
    return Counts(
        recipients=found.row.expected if event.audience else event.recipient_count,
        matched=_matched(found),
        unknown=len(event.unknown_ids),
        expected=expected,
        notifications=made,
        routed=made,
        missing=None if expected is None else expected - made,
        listed=counts.listed,
        read=counts.read,
        sent=counts.of([Status.SENT]),
        delivered=counts.of([Status.DELIVERED]),
        failed=counts.of(_FAILED),
        suppressed=dict(counts.suppressed),
        cancelled=counts.of([Status.CANCELLED]),
        uncertain=counts.of([Status.UNCERTAIN]),
        waiting=counts.waiting,
        difference=None if expected is None else expected * len(event.steps) - counts.of(Status),
        deliveries={Status(status): count for status, count in counts.deliveries.items()},
        by_channel={
            Channel(channel): {Status(status): count for status, count in statuses.items()}
            for channel, statuses in counts.by_channel.items()
        },
    )
