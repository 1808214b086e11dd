"""What providers told beside what was to be sent: messages that are there twice, receipts that never came, outcomes
that nobody knows. Run by Postgres.call."""

from dataclasses import dataclass
from typing import Final

from tocsin.storage.database import cursor

_MOST: Final = 10_000

# A message of an attempt that was heard of for the first time in the span, when another one of it was known already.
# What the sender itself was answered counts as heard of when it was recorded.
_DUPLICATES: Final = """
with touched as materialized (
  select distinct delivery_id, attempt from callbacks
  where received_at > tocsin_time(%(since)s) and received_at <= tocsin_time(%(until)s)
    and delivery_id is not null and attempt is not null and provider_id is not null
  limit %(most)s
), heard as (
  select delivery_id, attempt, callback.provider, callback.provider_id, min(received_at) as first
  from touched join callbacks callback using (delivery_id, attempt)
  where callback.provider_id is not null and received_at <= tocsin_time(%(until)s)
  group by delivery_id, attempt, callback.provider, callback.provider_id
  union all
  select id, attempt, delivery.provider, fact ->> 'provider_id', tocsin_time((fact ->> 'at')::bigint)
  from touched join deliveries delivery on delivery.id = delivery_id
  cross join lateral (select history -> (attempt || ':SENT') as fact) as recorded
  where fact ->> 'provider_id' is not null
), messages as (
  select delivery_id, attempt, provider_id, min(provider) as provider, min(first) as first
  from heard group by delivery_id, attempt, provider_id
), placed as (
  select *, row_number() over (partition by delivery_id, attempt order by first, provider_id) as place from messages
)
select placed.provider, delivery.event_id::text, count(*)
from placed join deliveries delivery on delivery.id = delivery_id
where place > 1 and first > tocsin_time(%(since)s)
group by placed.provider, delivery.event_id
"""

_UNCONFIRMED: Final = """
select coalesce(provider, ''), count(*) from (
  select provider from deliveries where channel = 'SMS' and status = 'SENT'
    and sent_at <= now() - %s * interval '1 millisecond' and sent_at > now() - %s * interval '1 millisecond'
  limit %s
) as unconfirmed group by provider
"""

_UNCERTAIN: Final = """
select coalesce(provider, ''), count(*) from (
  select provider from deliveries where status = 'UNCERTAIN' limit %s
) as uncertain group by provider
"""

_DAYS: Final = """
select count(distinct (started_at at time zone 'UTC')::date) from reconciliations
where started_at >= date_trunc('day', now() at time zone 'UTC') at time zone 'UTC' - interval '2 days'
  and (checks -> 'duplicates' ->> 'before')::bigint > 0
"""


@dataclass(frozen=True, slots=True)
class Duplicates:
    """How many messages of an event a provider has beside the first of each attempt."""

    provider: str
    event: str | None
    count: int


def duplicates(since_ms: int, until_ms: int) -> list[Duplicates]:
    """The duplicates that were heard of in a span of time."""
    with cursor() as query:
        query.execute(_DUPLICATES, {"since": since_ms, "until": until_ms, "most": _MOST})
        return [Duplicates(*row) for row in query.fetchall()]


def unconfirmed(after_ms: int, give_up_ms: int) -> dict[str, int]:
    """How many messages were sent longer than `after_ms` ago without a receipt, by provider; up to 10,000, and none of
    before `give_up_ms` ago."""
    with cursor() as query:
        query.execute(_UNCONFIRMED, (after_ms, give_up_ms, _MOST))
        return dict(query.fetchall())


def uncertain() -> dict[str, int]:
    """How many deliveries there are whose outcome nobody knows, by provider; up to 10,000."""
    with cursor() as query:
        query.execute(_UNCERTAIN, (_MOST,))
        return dict(query.fetchall())


def days_with_duplicates() -> int:
    """On how many of the last three days (UTC, today among them) runs found duplicates."""
    with cursor() as query:
        query.execute(_DAYS)
        return int(query.fetchone()[0])
