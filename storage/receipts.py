"""What receipts tell when they are looked at together: messages that a provider has twice, and how well receipts come.

Run by Postgres.call.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final
from uuid import UUID

from psycopg2.extras import execute_values

from tocsin.storage.database import cursor


@dataclass(frozen=True, slots=True)
class Duplicate:
    """One attempt that its provider made several messages of."""

    delivery: UUID
    attempt: int
    provider_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReceiptDay:
    """The receipts of one day (UTC) and provider: messages sent that should have one, those whose first receipt came,
    those of them that took more than 5 and 10 minutes, and those that never came. `delay_ms` is the sum of the times
    from sending to the first receipt; `provider_total` how many messages the provider itself lists, None where it does
    not tell."""

    day: date
    provider: str
    expected: int
    received: int
    late_5m: int
    late_10m: int
    never: int
    delay_ms: int
    provider_total: int | None = None


# What the provider answered us is looked at too: the second message may be the only one that has receipts. Row by row:
# all deliveries are more than the receipts of any time.
_DUPLICATES: Final = """
with told as (
  select delivery_id, attempt, provider_id from callbacks
  where received_at >= tocsin_time(%(since)s) and delivery_id is not null and provider_id is not null
), concerned as (select distinct delivery_id as id from told),
known as (
  select delivery_id, attempt, provider_id from told
  union
  select delivery.id, split_part(place, ':', 1)::integer, fact ->> 'provider_id'
  from concerned cross join lateral (select id, history from deliveries where id = concerned.id offset 0) as delivery
  cross join lateral jsonb_each(delivery.history) as of_history (place, fact)
  where fact ? 'provider_id' and fact ->> 'reason' is distinct from 'settled'
)
select delivery_id, attempt, array_agg(provider_id order by provider_id) from known
group by delivery_id, attempt having count(*) > 1 order by delivery_id desc, attempt limit 1000
"""

_COUNTED: Final = """
select (delivery.sent_at at time zone 'UTC')::date, delivery.provider, count(*), count(first.at),
  count(*) filter (where first.at > delivery.sent_at + interval '5 minutes'),
  count(*) filter (where first.at > delivery.sent_at + interval '10 minutes'),
  count(*) filter (where first.at is null and delivery.sent_at <= now() - %(never)s * interval '1 ms'),
  coalesce(sum(greatest(0, extract(epoch from first.at - delivery.sent_at) * 1000)), 0)::bigint
from deliveries delivery
left join lateral (select min(received_at) as at from callbacks where delivery_id = delivery.id) first on true
where delivery.channel = 'SMS' and delivery.sent_at >= %(first)s::date at time zone 'UTC'
  and delivery.sent_at < (%(last)s::date + 1) at time zone 'UTC' and delivery.provider = any(%(providers)s)
group by 1, 2 order by 1 desc, 2
"""

_COLUMNS: Final = "day, provider, expected, received, late_5m, late_10m, never, delay_ms, provider_total"
_STORED: Final = f"""
select {_COLUMNS} from callback_health where day between %s and %s order by day desc, provider
"""  # noqa: S608  # made of constants
_KEEP: Final = f"""
insert into callback_health as known ({_COLUMNS}) values %s
on conflict (day, provider) do update set
  expected = excluded.expected, received = excluded.received, late_5m = excluded.late_5m,
  late_10m = excluded.late_10m, never = excluded.never, delay_ms = excluded.delay_ms,
  provider_total = coalesce(excluded.provider_total, known.provider_total), counted_at = now()
"""  # noqa: S608


def duplicates(since_ms: int) -> list[Duplicate]:
    """Up to 1,000 attempts of which a receipt came since then, and that receipts or the provider's own answers name
    more than one message of; those of the newest events first."""
    with cursor() as query:
        query.execute(_DUPLICATES, {"since": since_ms})
        return [Duplicate(delivery, attempt, tuple(ids)) for delivery, attempt, ids in query.fetchall()]


def counted(providers: Sequence[str], first: date, last: date, never_after_ms: int) -> list[ReceiptDay]:
    """The days from `first` to `last`, counted now; the newest first. A receipt that has not come `never_after_ms`
    after sending counts as never received."""
    given = {"providers": list(providers), "first": first, "last": last, "never": never_after_ms}
    with cursor() as query:
        query.execute(_COUNTED, given)
        return [ReceiptDay(*row) for row in query.fetchall()]


def stored(first: date, last: date) -> list[ReceiptDay]:
    """The days from `first` to `last` as they were stored; the newest first."""
    with cursor() as query:
        query.execute(_STORED, (first, last))
        return [ReceiptDay(*row) for row in query.fetchall()]


def keep(days: Sequence[ReceiptDay]) -> None:
    """Stores days; a total that the provider told before stays where it tells none now."""
    with cursor() as query:
        execute_values(
            query, _KEEP, [_values(each) for each in sorted(days, key=lambda each: (each.day, each.provider))]
        )


def _values(each: ReceiptDay) -> tuple[Any, ...]:
    counts = (each.expected, each.received, each.late_5m, each.late_10m, each.never, each.delay_ms)
    return (each.day, each.provider, *counts, each.provider_total)
