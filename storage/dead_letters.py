"""Dead letters: what was given up, listed and grouped by cause. Run by Postgres.call.

A delivery that ended FAILED or DEAD, and an event whose fan-out or a chunk of it was given up. What was suppressed,
cancelled or bounced is none; an unknown outcome that is held is settled instead.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from tocsin.domain.delivery import Status
from tocsin.storage.database import cursor
from tocsin.storage.id_ranges import first_of, of_event

_MOST_CAUSES: Final = 200

# Both kinds in the same columns, so that one list and one count serve both. Nearly always the attempts that were made
# are all there are, and then the last one's end is found without a look at the whole history.
_LETTERS: Final = """
select delivery.id, 'DELIVERY' as kind, delivery.event_id, event.type, delivery.notification_id, delivery.user_id,
  delivery.channel, delivery.provider, delivery.status, delivery.reason, delivery.error_code as code,
  delivery.error_message as message, delivery.attempt_count,
  coalesce((delivery.history -> (delivery.attempt_count || ':' || delivery.status) ->> 'at')::bigint,
    (select max((fact ->> 'at')::bigint) from jsonb_each(delivery.history) as told (place, fact))) as failed_ms,
  (extract(epoch from discard.at) * 1000)::bigint as discarded_ms, discard.by as discarded_by,
  discard.reason as discard_reason
from deliveries delivery
left join events event on event.id = delivery.event_id
left join discards discard on discard.id = delivery.id
where delivery.status in ('FAILED', 'DEAD')
"""
_EVENTS: Final = """
select event.id, 'EVENT' as kind, event.id as event_id, event.type, null::uuid as notification_id, null as user_id,
  null as channel, null as provider, event.status, 'internal' as reason, null as code, event.error as message,
  null::integer as attempt_count, (extract(epoch from event.completed_at) * 1000)::bigint as failed_ms,
  (extract(epoch from discard.at) * 1000)::bigint as discarded_ms, discard.by as discarded_by,
  discard.reason as discard_reason
from events event
left join discards discard on discard.id = event.id
where event.status = 'FAILED' and event.accepted_at is not null and event.cancelled_at is null
"""


class LetterKind(StrEnum):
    """What died: one delivery, or the fan-out of an event or a part of it."""

    DELIVERY = "DELIVERY"
    EVENT = "EVENT"


class Discarded(StrEnum):
    """Whether what was discarded is looked at."""

    NO = "NO"
    YES = "YES"
    ALL = "ALL"


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which dead letters; all of what is given must hold. Times are those of the event, in ms. `before` is the id after
    which a page goes on."""

    ids: tuple[UUID, ...] | None = None
    kind: str | None = None
    event: UUID | None = None
    type: str | None = None
    user: str | None = None
    channel: str | None = None
    provider: str | None = None
    status: str | None = None
    reason: str | None = None
    code: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    discarded: str = Discarded.NO
    before: UUID | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter; times in ms. What only a delivery has is None for an event."""

    id: UUID
    kind: str
    event_id: UUID | None
    type: str | None
    notification_id: UUID | None
    user_id: str | None
    channel: str | None
    provider: str | None
    status: str
    reason: str | None
    code: str | None
    message: str | None
    attempt_count: int | None
    failed_ms: int | None
    discarded_ms: int | None
    discarded_by: str | None
    discard_reason: str | None


@dataclass(frozen=True, slots=True)
class Cause:
    """Dead letters that died alike; `message` is one of theirs. `count` leaves out what was discarded."""

    kind: str
    channel: str | None
    provider: str | None
    status: str
    reason: str | None
    code: str | None
    message: str | None
    count: int
    discarded: int
    first_ms: int | None
    last_ms: int | None


def dead_letters(wanted: LetterFilter, limit: int) -> list[DeadLetter]:
    """Up to `limit` dead letters, those of the newest events first."""
    parts, values = _parts(wanted)
    pages = [f"({part} order by 1 desc limit %s)" for part in parts]
    with_limits = [value for own in values for value in (*own, limit)]
    statement = f"select * from ({' union all '.join(pages)}) as letters order by id desc limit %s"  # noqa: S608
    return [DeadLetter(*row) for row in _asked(statement, [*with_limits, limit])] if parts else []


def count(wanted: LetterFilter, most: int) -> int:
    """How many dead letters there are, counted up to `most`."""
    parts, values = _parts(wanted)
    if not parts:
        return 0
    statement = f"select count(*) from (select from ({' union all '.join(parts)}) as letters limit %s) as counted"  # noqa: S608
    ((found,),) = _asked(statement, [*(value for own in values for value in own), most])
    return int(found)


def causes(wanted: LetterFilter) -> list[Cause]:
    """The dead letters grouped by why they died, those that are most first; at most 200 groups."""
    parts, values = _parts(wanted)
    if not parts:
        return []
    statement = f"""
select kind, channel, provider, status, reason, code,
  (array_agg(message order by failed_ms desc nulls last) filter (where message is not null))[1],
  count(*) filter (where discarded_ms is null), count(discarded_ms), min(failed_ms), max(failed_ms)
from ({" union all ".join(parts)}) as letters
group by kind, channel, provider, status, reason, code
order by 8 desc, 9 desc, 11 desc nulls last, kind, channel, provider, status, reason, code limit %s
"""  # noqa: S608  # made of constants
    return [Cause(*row) for row in _asked(statement, [*(value for own in values for value in own), _MOST_CAUSES])]


def held_count(most: int) -> int:
    """How many deliveries have an unknown outcome that somebody has to settle, counted up to `most`."""
    statement = "select count(*) from (select from deliveries where status = %s limit %s) as held"
    ((found,),) = _asked(statement, [Status.UNCERTAIN, most])
    return int(found)


def _parts(wanted: LetterFilter) -> tuple[list[str], list[list[Any]]]:
    """The statements for each kind that can fit, and the values of each."""
    parts, values = [], []
    for kind, statement in ((LetterKind.DELIVERY, _LETTERS), (LetterKind.EVENT, _EVENTS)):
        if wanted.kind in {None, kind} and not (kind is LetterKind.EVENT and _is_of_deliveries(wanted)):
            conditions = list(_conditions(wanted, kind))
            parts.append(statement + "".join(f" and {condition}" for condition, _ in conditions))
            values.append([value for _, own in conditions for value in own])
    return parts, values


def _is_of_deliveries(wanted: LetterFilter) -> bool:
    """Whether a condition is given that no event fulfils."""
    if wanted.status not in {None, Status.FAILED} or wanted.reason not in {None, "internal"}:
        return True
    return any(each is not None for each in (wanted.user, wanted.channel, wanted.provider, wanted.code))


def _conditions(wanted: LetterFilter, kind: LetterKind) -> Iterator[tuple[str, Sequence[Any]]]:
    row = kind.lower()
    if wanted.ids is not None:
        yield f"{row}.id = any(%s::uuid[])", (list(map(str, wanted.ids)),)
    if wanted.event is not None:
        # An event's rows lie in one range of ids.
        first, last = of_event(wanted.event)
        if kind is LetterKind.DELIVERY:
            yield "delivery.id between %s::uuid and %s::uuid", (str(first), str(last))
        yield "event.id = %s::uuid", (str(wanted.event),)
    for bound, ms in ((">=", wanted.from_ms), ("<", wanted.to_ms)):
        if ms is not None:
            yield f"{row}.id {bound} %s::uuid", (str(first_of(ms)),)
    if wanted.before is not None:
        yield f"{row}.id < %s::uuid", (str(wanted.before),)
    if wanted.type is not None:
        yield "event.type = %s", (wanted.type,)
    if wanted.discarded != Discarded.ALL:
        yield f"discard.id is {'not ' if wanted.discarded == Discarded.YES else ''}null", ()
    if kind is LetterKind.DELIVERY:
        yield from _of_delivery(wanted)


def _of_delivery(wanted: LetterFilter) -> Iterator[tuple[str, Sequence[Any]]]:
    for column, value in (
        ("user_id", wanted.user),
        ("channel", wanted.channel),
        ("provider", wanted.provider),
        ("status", wanted.status),
        ("reason", wanted.reason),
        ("error_code", wanted.code),
    ):
        if value is not None:
            yield f"delivery.{column} = %s", (value,)


def _asked(statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    with cursor() as query:
        query.execute(statement, list(values))
        return list(query.fetchall())
