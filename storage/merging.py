"""The statements by which facts merge into rows. Each can be applied any number of times, in any order."""

from typing import Final

from tocsin.storage.accepted_rows import COLUMNS, GIVEN, ON_CONFLICT, VALUES
from tocsin.storage.copying import Target
from tocsin.storage.counting import Merge, of_locked

_NOTIFICATION: Final = "id, event_id, user_id, cid, routed_at, listed_at, read_at"
_NOTIFICATIONS: Final = f"""
insert into notifications as known ({_NOTIFICATION})
select {_NOTIFICATION} from incoming_notifications
on conflict (id) do update set
  event_id = coalesce(known.event_id, excluded.event_id),
  cid = coalesce(known.cid, excluded.cid),
  routed_at = least(known.routed_at, excluded.routed_at),
  listed_at = least(known.listed_at, excluded.listed_at),
  read_at = least(known.read_at, excluded.read_at)
where (known.event_id is null and excluded.event_id is not null)
  or least(known.routed_at, excluded.routed_at) is distinct from known.routed_at
  or least(known.listed_at, excluded.listed_at) is distinct from known.listed_at
  or least(known.read_at, excluded.read_at) is distinct from known.read_at
"""  # noqa: S608  # made of constants
NOTIFICATIONS: Final = Target("notifications", _NOTIFICATION, Merge("notifications", _NOTIFICATION, _NOTIFICATIONS))

_SHOWN: Final = (
    "status, reason, attempt_count, max_attempts, queued_at, last_attempted_at, next_attempt_at, sent_at, delivered_at,"
    " provider, provider_id, provider_status, error_code, error_message, price, segments"
)

_DELIVERY: Final = f"id, notification_id, event_id, user_id, step, channel, scheduled_for, address, {_SHOWN}, history"

# What a row shows is made anew of the merged history. An address that the history does not tell is the plan's. A fact
# that is known already leaves the row alone. The temporary table is read in the order in which it was written,
# so that persisters that work on the same rows never wait for each other in a circle.
_DELIVERIES: Final = f"""
insert into deliveries as known ({_DELIVERY})
select {_DELIVERY} from incoming_deliveries
on conflict (id) do update set
  event_id = coalesce(known.event_id, excluded.event_id),
  user_id = coalesce(known.user_id, excluded.user_id),
  scheduled_for = coalesce(known.scheduled_for, excluded.scheduled_for),
  (address, {_SHOWN}, history) = (
    select coalesce(shown.address, known.address, excluded.address), {_SHOWN.replace("status,", "shown.status,", 1)},
      merged.history
    from tocsin_merged(known.history, excluded.history) as merged,
      tocsin_shown(merged.history) as shown
  )
where (known.history || excluded.history) <> known.history or (known.event_id is null and excluded.event_id is not null)
"""  # noqa: S608  # made of constants
DELIVERIES: Final = Target("deliveries", _DELIVERY, Merge("deliveries", _DELIVERY, _DELIVERIES))

_MERGED: Final = f"""(
    select coalesce(shown.address, known.address), {_SHOWN.replace("status,", "shown.status,", 1)}, merged.history
    from tocsin_merged(known.history, given.history) as merged, tocsin_shown(merged.history) as shown
  )"""  # noqa: S608  # made of constants

_UPDATE: Final = f"""
update deliveries as known set (address, {_SHOWN}, history) = {_MERGED} from given where known.id = given.id
"""  # noqa: S608  # made of constants

# One more fact for each of some rows that are there, and locked.
FACTS_OF_DELIVERIES: Final = f"""
with given (id, history) as (values %s), {of_locked("deliveries", "where id in (select id from given)", _UPDATE)}
"""  # noqa: S608  # made of constants
FACT_VALUES: Final = "(%s::uuid, %s::jsonb)"

# Two statements, each given the same JSON.
ACCEPTED: Final = f"insert into events ({COLUMNS}) select {VALUES} from {GIVEN} order by id {ON_CONFLICT}"  # noqa: S608
KEYS: Final = f"""
insert into event_keys as known (key, event_id, signature)
select distinct on (event_key) event_key, id, signature from {GIVEN} where event_key is not null
order by event_key, id desc
on conflict (key) do update set event_id = excluded.event_id, signature = excluded.signature, at = now()
where known.event_id < excluded.event_id
"""  # noqa: S608  # made of constants
IDEMPOTENCY: Final = f"""
insert into idempotency (scope, key, hash, event_id, answer)
select scope, key, hash, id, answer from {GIVEN} where scope is not null order by scope, key
on conflict do nothing
"""  # noqa: S608  # made of constants

EVENTS: Final = """
insert into events as known (id, generation, status, expected, error, started_at, completed_at, cancelled_at,
  cancel_reason, cancelled_by)
values %s
on conflict (id) do update set
  generation = greatest(known.generation, excluded.generation),
  status = case when (excluded.generation, tocsin_event_rank(excluded.status))
    > (known.generation, tocsin_event_rank(known.status)) then excluded.status else known.status end,
  expected = greatest(known.expected, excluded.expected),
  (error, completed_at) = (
    select min(told.error collate "C"), min(told.completed_at)
    from (values (known.generation, known.error, known.completed_at),
      (excluded.generation, excluded.error, excluded.completed_at)) as told (generation, error, completed_at)
    where told.generation = greatest(known.generation, excluded.generation)
  ),
  started_at = least(known.started_at, excluded.started_at),
  (cancelled_at, cancel_reason, cancelled_by) = (
    select told.at, told.reason, told.by
    from (values (known.cancelled_at, known.cancel_reason, known.cancelled_by),
      (excluded.cancelled_at, excluded.cancel_reason, excluded.cancelled_by)) as told (at, reason, by)
    order by told.at nulls last, told.reason collate "C", told.by collate "C" limit 1
  )
"""
EVENT_VALUES: Final = (
    "(%s::uuid, %s::integer, %s, %s::bigint, %s, tocsin_time(%s), tocsin_time(%s), tocsin_time(%s), %s, %s)"
)

CALLBACKS: Final = """
insert into callbacks (provider, id, received_at, cid, raw, delivery_id, attempt, provider_id, word) values %s
on conflict do nothing
"""
CALLBACK_VALUES: Final = "(%s, %s, tocsin_time(%s), %s, %s, %s::uuid, %s::integer, %s, %s)"
