"""How dead letters are asked for and shown."""

from __future__ import annotations

from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints

from tocsin.domain.delivery import Channel, Reason, Status
from tocsin.http.delivery_shapes import Delivery
from tocsin.http.shapes import Answer, Asked, AskedMoment, EventType, Line, Listing, Moment, Paging, Query, UserId
from tocsin.storage.dead_letters import Cause, DeadLetter, Discarded, LetterFilter, LetterKind

_MOST_IDS: Final = 200
_MOST: Final = 1_000

Word = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


class _Filter(BaseModel):
    """What a query and a body have in common."""

    kind: LetterKind | None = None
    event_id: UUID | None = None
    type: EventType | None = None
    user_id: UserId | None = None
    channel: Channel | None = None
    provider: Word | None = None
    status: Literal[Status.FAILED, Status.DEAD] | None = None
    reason: Reason | None = None
    code: Word | None = None
    from_: AskedMoment | None = Field(None, alias="from")
    to: AskedMoment | None = None


class CausesQuery(_Filter, Query):
    """Which dead letters; all of what is given must hold. `from` and `to` are times of the event."""


class LettersQuery(_Filter, Paging):
    """Which dead letters; all of what is given must hold. `from` and `to` are times of the event."""

    discarded: Discarded = Discarded.NO
    """NO: what was discarded is left out."""


class AskedFilter(_Filter, Asked):
    """Which dead letters; all of what is given must hold. `from` and `to` are times of the event."""

    discarded: Discarded | None = None
    """NO where it is left out, and with `ids` ALL."""


class RetryLetters(Asked):
    """Dead letters to be replayed: those named, those that fit the filter, or of those named the ones that fit. At most
    `limit` a call, those of the newest events first; `cursor` is the `nextCursor` of the call before."""

    ids: Annotated[tuple[UUID, ...], Field(min_length=1, max_length=_MOST_IDS)] | None = None
    filter: AskedFilter | None = None
    limit: Annotated[int, Field(ge=1, le=_MOST)] = 500
    cursor: UUID | None = None


class DiscardLetters(RetryLetters):
    """Dead letters to be put aside, and why."""

    reason: Annotated[Line, StringConstraints(max_length=500)]


class Letter(Answer):
    """A delivery that ended FAILED or DEAD, or an event of which something was given up. What an event has not is null.
    `error` is what the provider said last."""

    id: UUID
    kind: LetterKind
    event_id: UUID | None
    type: str | None
    notification_id: UUID | None
    recipient_id: str | None
    channel: Channel | None
    provider: str | None
    status: Status
    reason: str | None
    error: str | None
    error_code: str | None
    attempt_count: int | None
    failed_at: Moment | None
    discarded_at: Moment | None
    discarded_by: str | None
    discard_reason: str | None


class Letters(Listing[Letter]):
    """A page of dead letters, those of the newest events first."""


class LetterCause(Answer):
    """Dead letters that died alike. `count` leaves out those that were discarded; `sample` is what was said last."""

    kind: LetterKind
    channel: Channel | None
    provider: str | None
    status: Status
    reason: str | None
    error_code: str | None
    sample: str | None
    count: int
    discarded: int
    first_at: Moment | None
    last_at: Moment | None


class LetterCauses(Answer):
    """Why dead letters died, most first; at most 200 causes. `held` deliveries have an unknown outcome: those are no
    dead letters, and are settled instead."""

    data: tuple[LetterCause, ...]
    total: int
    discarded: int
    held: int


class RetriedLetters(Answer):
    """What became of them. `waiting` of the replayed start when Redis is back; `refused` are not sent any more, by
    reason; `skipped` are no dead letters (any more) or not known; `busy` are events of which something is still in
    motion, and what something is kept of in the bad facts. `remaining` fit and were not looked at: ask again with
    `nextCursor`."""

    success: Literal[True] = True
    replayed: int
    waiting: int
    refused: dict[str, int]
    skipped: int
    busy: int
    remaining: int
    next_cursor: UUID | None


class DiscardedLetters(Answer):
    """How many were put aside now. `remaining` fit and were not looked at: ask again with `nextCursor`."""

    success: Literal[True] = True
    discarded: int
    remaining: int
    next_cursor: UUID | None


class RetriedDelivery(Answer):
    """The delivery waits for another attempt; `waitingForRedis` where Redis is away: it starts when that is back."""

    success: Literal[True] = True
    waiting_for_redis: bool
    delivery: Delivery


def filter_of(
    asked: CausesQuery | LettersQuery | AskedFilter,
    discarded: Discarded,
    ids: tuple[UUID, ...] | None = None,
    before: UUID | None = None,
) -> LetterFilter:
    """What is asked, as storage takes it."""
    return LetterFilter(
        ids=ids,
        kind=asked.kind,
        event=asked.event_id,
        type=asked.type,
        user=asked.user_id,
        channel=asked.channel,
        provider=asked.provider,
        status=asked.status,
        reason=asked.reason,
        code=asked.code,
        from_ms=asked.from_,
        to_ms=asked.to,
        discarded=discarded,
        before=before,
    )


def letter_of(row: DeadLetter) -> Letter:
    """A dead letter, as shown."""
    return Letter(
        id=row.id,
        kind=LetterKind(row.kind),
        event_id=row.event_id,
        type=row.type,
        notification_id=row.notification_id,
        recipient_id=row.user_id,
        channel=Channel(row.channel) if row.channel else None,
        provider=row.provider,
        status=Status(row.status),
        reason=row.reason,
        error=row.message or row.reason,
        error_code=row.code,
        attempt_count=row.attempt_count,
        failed_at=row.failed_ms,
        discarded_at=row.discarded_ms,
        discarded_by=row.discarded_by,
        discard_reason=row.discard_reason,
    )


def cause_of(row: Cause) -> LetterCause:
    """A cause, as shown."""
    return LetterCause(
        kind=LetterKind(row.kind),
        channel=Channel(row.channel) if row.channel else None,
        provider=row.provider,
        status=Status(row.status),
        reason=row.reason,
        error_code=row.code,
        sample=row.message,
        count=row.count,
        discarded=row.discarded,
        first_at=row.first_ms,
        last_at=row.last_ms,
    )
