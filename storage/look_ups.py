"""Whom to ask about at the providers, and what they answered: one row an attempt. Run by Postgres.call."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from psycopg2.extras import execute_values

from tocsin.domain.delivery import History
from tocsin.domain.setting_sections import UncertainSettings
from tocsin.storage.database import cursor
from tocsin.storage.moments import ms_of


class Result(StrEnum):
    """What came of asking."""

    FOUND = "FOUND"
    NOT_FOUND = "NOT_FOUND"
    TIE = "TIE"
    LOW = "LOW"
    NOT_ASKED = "NOT_ASKED"


@dataclass(frozen=True, slots=True)
class Doubt:
    """A delivery whose end is not known. `event` and `user` are None while only a receipt told of it."""

    delivery: UUID
    notification: UUID
    event: UUID | None
    user: str | None
    step: int
    channel: str
    status: str
    address: str | None
    provider_id: str | None
    history: History


@dataclass(frozen=True, slots=True)
class Rival:
    """Another delivery in doubt or under way to an address, with what it says."""

    delivery: UUID
    channel: str
    address: str
    text: str | None
    history: History


@dataclass(frozen=True, slots=True)
class LookUp:
    """The last answer about one attempt."""

    delivery: UUID
    attempt: int
    result: Result
    provider: str
    method: str | None = None
    confidence: str | None = None
    difference_ms: int | None = None
    provider_id: str | None = None
    word: str | None = None
    candidates: int = 0


@dataclass(frozen=True, slots=True)
class Answered:
    """A look-up as it is kept: when it was asked last, in ms, and how often."""

    look_up: LookUp
    asked_ms: int
    times: int


# Longer each time: after the first answer `again_after`, then twice that. Those never asked of come first.
_DUE: Final = """
with askable as (select * from unnest(%(channels)s::text[], %(providers)s::text[]) as given (channel, provider)),
doubted as (
  select id from deliveries where status = 'UNCERTAIN' and last_attempted_at <= now() - %(first)s * interval '1 ms'
    and last_attempted_at > now() - %(give_up)s * interval '1 ms'
  union all
  select id from deliveries where channel = 'SMS' and status = 'SENT' and channel = any(%(receipts)s)
    and sent_at <= now() - %(receipt)s * interval '1 ms' and sent_at > now() - %(give_up)s * interval '1 ms'
)
select delivery.id, delivery.notification_id, delivery.event_id, delivery.user_id, delivery.step, delivery.channel,
  delivery.status, delivery.address, delivery.provider_id, delivery.history
from doubted
join deliveries delivery using (id)
join askable on askable.channel = delivery.channel
  and askable.provider = coalesce(delivery.provider, askable.provider)
left join lateral (
  select max(asked_at) as asked_at, max(times) as times from look_ups where delivery_id = delivery.id
) asked on true
where asked.asked_at is null
  or asked.asked_at + %(again)s * interval '1 ms' * 2 ^ least(asked.times - 1, 20) <= now()
order by asked.asked_at nulls first, delivery.id
limit %(limit)s
"""

# The statuses stand here as in the partial index deliveries_to_address.
_RIVALS: Final = """
select rival.id, rival.channel, rival.address, event.message, rival.history
from deliveries rival
left join events event on event.id = rival.event_id
where rival.status in ('RETRYING', 'SENDING', 'UNCERTAIN') and rival.address = any(%(addresses)s)
"""

_OWNERS: Final = """
select provider_id, id from deliveries where provider_id = any(%(ids)s)
union
select provider_id, delivery_id from callbacks where provider_id = any(%(ids)s) and delivery_id is not null
"""

_KEEP: Final = """
insert into look_ups as known (delivery_id, attempt, asked_at, result, provider, method, confidence, difference_ms,
  provider_id, word, candidates)
values %s
on conflict (delivery_id, attempt) do update set
  asked_at = excluded.asked_at, times = known.times + 1, result = excluded.result, provider = excluded.provider,
  method = excluded.method, confidence = excluded.confidence, difference_ms = excluded.difference_ms,
  provider_id = excluded.provider_id, word = excluded.word, candidates = excluded.candidates
"""
_KEPT: Final = "(%s::uuid, %s, now(), %s, %s, %s, %s, %s, %s, %s, %s)"


_ANSWERS: Final = """
select delivery_id, attempt, result, provider, method, confidence, difference_ms, provider_id, word, candidates,
  asked_at, times
from look_ups
where (%(result)s::text is null or result = %(result)s)
  and (%(delivery)s::uuid is null or (delivery_id, attempt) < (%(delivery)s::uuid, %(attempt)s))
order by delivery_id desc, attempt desc limit %(limit)s
"""


def answers(result: Result | None, before: tuple[int, UUID] | None, limit: int) -> list[Answered]:
    """Up to `limit` answers, those about the newest events first; `before` is attempt and delivery of the last seen."""
    attempt, delivery = before or (None, None)
    given = {"result": result, "attempt": attempt, "delivery": str(delivery) if delivery else None, "limit": limit}
    with cursor() as query:
        query.execute(_ANSWERS, given)
        return [
            Answered(LookUp(row[0], row[1], Result(row[2]), *row[3:10]), ms_of(row[10]), row[11])
            for row in query.fetchall()
        ]


def due(
    settings: UncertainSettings, askable: Sequence[tuple[str, str]], receipts: Sequence[str], limit: int
) -> list[Doubt]:
    """Up to `limit` deliveries that a provider is to be asked about now. `askable` are channels with the provider that
    can be asked there; `receipts` those of them on which each message should have its receipt."""
    given = {
        "channels": [channel for channel, _ in askable],
        "providers": [provider for _, provider in askable],
        "receipts": list(receipts),
        "first": settings.first_after,
        "receipt": settings.receipt_after,
        "again": settings.again_after,
        "give_up": settings.give_up_after,
        "limit": limit,
    }
    with cursor() as query:
        query.execute(_DUE, given)
        return [Doubt(*row) for row in query.fetchall()]


def rivals(addresses: Sequence[str]) -> list[Rival]:
    """The deliveries to these addresses that are in doubt or under way."""
    with cursor() as query:
        query.execute(_RIVALS, {"addresses": list(addresses)})
        return [Rival(*row) for row in query.fetchall()]


def owners(provider_ids: Sequence[str]) -> dict[str, set[UUID]]:
    """The deliveries that messages at a provider are known to belong to."""
    found: dict[str, set[UUID]] = {}
    with cursor() as query:
        query.execute(_OWNERS, {"ids": list(provider_ids)})
        for provider_id, delivery in query.fetchall():
            found.setdefault(provider_id, set()).add(delivery)
    return found


def keep(answers: Sequence[LookUp]) -> None:
    """Stores what was answered, so that it is not asked again and again."""
    values = [_values(each) for each in sorted(answers, key=lambda each: (each.delivery, each.attempt))]
    with cursor() as query:
        execute_values(query, _KEEP, values, template=_KEPT)


def _values(each: LookUp) -> tuple[Any, ...]:
    how = (each.method, each.confidence, each.difference_ms)
    said = (each.provider_id, each.word, each.candidates)
    return (str(each.delivery), each.attempt, each.result, each.provider, *how, *said)
