"""Rows as they lie after some time: few of them with a Postgres that takes them for many, or as many as told of.

The planner goes by statistics and by the size of files. Both can be had without the rows: statistics of a sample hold
for the whole, and a file can be made as large as it would be with nothing in it.
"""

import os
import time
from pathlib import Path
from typing import Any, Final

from tocsin.domain.periods import Period
from tocsin.storage.partitions import make_ahead

_PAGE: Final = 8_192
_MOST_PAGES: Final = 131_071
"""A file that is larger would be two."""
_INDEX_ENTRY: Final = 45
"""Bytes, about, with what is free."""

# Events of the last sixty days. The first has a tenth of all notifications, each other one ten.
_EVENTS: Final = """
insert into events (id, generation, type, source, title, message, metadata, channels, strategy, priority, policy, steps,
  mandatory, sender, cid, recipient_count, unknown_ids, recipients, status, expected, accepted_at, started_at,
  completed_at, cancelled_at)
select (left(tocsin_id_at(at)::text, 14) || '7' || substr(md5('e' || k), 1, 3) || '-8' || substr(md5('e' || k), 4, 3)
    || '-' || substr(md5('e' || k), 7, 12))::uuid,
  0, (array['event.approval', 'community.update', 'security.alert'])[1 + k %% 3], 'api_action', 'Title', 'Message',
  '{}', '["IN_APP", "EMAIL"]', 'BROADCAST', 'HIGH', 'default',
  '[{"channel": "IN_APP", "after_ms": 0}, {"channel": "EMAIL", "after_ms": 0}]', false, 'shop', 'c' || k, 10, '[]',
  '[]', case when k %% 100 = 3 then 'FAILED' when k %% 100 = 4 then 'PROCESSING' else 'COMPLETED' end, 10, at, at,
  case when k %% 100 <> 4 then at + interval '1 second' end, case when k %% 200 = 9 then at end
from (
  select k, now() - interval '60 days' + k * interval '60 days' / %(events)s as at
  from generate_series(0, %(events)s - 1) as numbers (k)
) as made
"""
_NOTIFICATIONS: Final = """
insert into notifications (id, event_id, user_id, cid, routed_at, listed_at, read_at)
select (left(event.id::text, 14) || '8' || substr(md5('n' || i), 1, 3) || '-8' || substr(md5('n' || i), 4, 3) || '-'
    || substr(md5('n' || i), 7, 12))::uuid, event.id, 'u' || i * 7919 %% %(users)s, event.cid, event.accepted_at,
  case when i %% 10 > 0 then event.accepted_at end, case when i %% 3 > 0 then event.accepted_at end
from (select row_number() over (order by id) - 1 as k, * from events) as event
join lateral generate_series(
  case when event.k = 0 then 0 else %(first)s + (event.k - 1) * 10 end,
  case when event.k = 0 then %(first)s - 1 else %(first)s + event.k * 10 - 1 end
) as numbers (i) on i < %(notifications)s
"""
_DELIVERIES: Final = """
insert into deliveries (id, notification_id, event_id, user_id, step, channel, status, attempt_count, max_attempts,
  address, scheduled_for, queued_at, last_attempted_at, next_attempt_at, sent_at, provider, provider_id, error_code,
  history)
select (left(id::text, 14) || '8' || substr(md5(step || id::text), 1, 3) || '-8' || substr(md5(step || id::text), 4, 3)
    || '-' || substr(md5(step || id::text), 7, 12))::uuid, id, event_id, user_id, step, channel, status,
  (step - 1)::integer, 3, case when step = 2 then user_id || '@example.org' end, at, at, case when step = 2 then at end,
  case when status = 'RETRYING' then at end, case when step = 2 and status in ('SENT', 'DELIVERED') then at end,
  case when step = 2 then 'smtp' end, case when step = 2 and status in ('SENT', 'DELIVERED') then md5(id::text) end,
  case when status in ('FAILED', 'DEAD') then '550' end,
  jsonb_build_object('1:QUEUED', jsonb_build_object('at', 1795000000000),
    '1:' || status, jsonb_build_object('at', 1795000000123))
from (
  select note.id, note.event_id, note.user_id, note.routed_at as at, step,
    case when step = 1 then 'IN_APP' when luck %% 5 = 0 then 'SMS' else 'EMAIL' end as channel,
    case when step = 1 then 'DELIVERED' when luck < 500 and luck %% 5 > 0 then 'SENT'
      when luck < 520 then 'SUPPRESSED' when luck < 530 then 'CANCELLED' when luck < 980 then 'DELIVERED'
      else (array['FAILED', 'DEAD', 'UNCERTAIN', 'BOUNCED', 'SCHEDULED', 'QUEUED', 'RETRYING', 'SENDING', 'SENT'])
        [1 + luck %% 9] end as status
  from notifications note cross join generate_series(1, 2) as steps (step)
  cross join lateral (select ('x' || substr(md5(note.id::text), 1, 7))::bit(28)::integer %% 1000 as luck) as drawn
) as made
"""
_OTHERS: Final = (
    """
insert into users (id, email, phone, attributes, updated_at)
select 'u' || k, 'u' || k || '@example.org', '+1415' || k,
  jsonb_build_object('age', k %% 90, 'gotra', 'g' || k %% 50, 'city', 'c' || k %% 300),
  now() - k * interval '1 minute' from generate_series(0, %(users)s - 1) as numbers (k)
""",
    "insert into devices (user_id, kind, token) select id, 'fcm', 'token of ' || id from users",
    """
insert into preferences (user_id, opt_outs, updated_at)
select id, case when id like '%%7' then '["SMS"]'::jsonb else '[]' end, updated_at from users
""",
    "insert into subscriptions (user_id, type, active) select id, 'community.update', id not like '%%3' from users",
    "insert into topics (key, kind) select 't' || k, 'family' from generate_series(0, %(users)s / 10) as numbers (k)",
    """
insert into members (topic, user_id, roles) select 't' || substr(id, 2)::integer %% (%(users)s / 10), id,
  case when id like '%%1' then '{head}'::text[] else '{}' end from users
""",
    """
insert into callbacks (provider, id, received_at, raw, delivery_id, attempt, provider_id, word)
select 'twilio', 'k' || id, sent_at, '{}', id, 1, provider_id, 'delivered' from deliveries where sent_at is not null
""",
    """
insert into look_ups (delivery_id, attempt, asked_at, result)
select id, 1, now(), 'NOT_FOUND' from deliveries where status = 'UNCERTAIN'
""",
    """
insert into idempotency (scope, key, hash, event_id, created_at)
select 'shop', cid, 'hash', id, accepted_at from events where accepted_at < now()
""",
    """
insert into event_keys (key, event_id, signature, at)
select cid, id, 'v1', accepted_at from events where accepted_at < now()
""",
    """
insert into discards (id, by, reason)
select id, 'ops', 'old' from deliveries where status = 'DEAD' and id::text like '%%a'
""",
    """
insert into event_counts (event_id, channel, status, reason, count)
select id, told.channel, told.status, '', 5 from events cross join (values ('', 'MADE'), ('', 'LISTED'), ('', 'READ'),
  ('IN_APP', 'DELIVERED'), ('EMAIL', 'SENT'), ('EMAIL', 'DELIVERED')) as told (channel, status)
""",
    """
insert into count_changes (event_id, channel, status, reason, difference)
select id, '', 'READ', '', 1 from events order by id desc limit 100
""",
    """
insert into reconciliations (started_at, ended_at, started_by, repair, whole, ledger, actual, difference, not_judged,
  in_sync, checks, worst, providers)
select accepted_at, accepted_at, 'job', true, true, 0, 0, 0, 0, true, '{}', '[]', '{}' from events
order by id desc limit 100
""",
    "insert into audit_log (action, actor, detail) select 'key.created', 'ops', '{}' from events limit 100",
)


def fill(query: Any, deliveries: int) -> None:
    """Fills an empty schema with about so many deliveries, half as many notifications and the rest in proportion."""
    for weeks in (9, 4):
        make_ahead(query, Period.MONTH, time.time_ns() // 1_000_000 - weeks * 7 * 86_400_000)
    query.execute("begin")
    notifications = deliveries // 2
    first = notifications // 10
    sizes = {
        "notifications": notifications,
        "first": first,
        "events": (notifications - first) // 10 + 1,
        "users": max(200, notifications // 5),
    }
    for statement in (_EVENTS, _NOTIFICATIONS, _DELIVERIES, *_OTHERS):
        query.execute(statement, sizes)
    query.execute("commit")


_ALL: Final = """
select class.oid::regclass::text, class.relkind = 'i', class.reltuples, class.relpages,
  current_setting('data_directory') || '/' || pg_relation_filepath(class.oid)
from pg_class class join pg_namespace space on space.oid = class.relnamespace
where space.nspname = 'public' and class.relkind in ('r', 'i') and class.reltuples > 0
"""


def analyze(query: Any) -> None:
    """As autovacuum does it, which looks at partitions and not at what is made of them."""
    query.execute("; ".join(f"analyze {name}" for name in _tables(query)))


def leave_alone(query: Any) -> None:
    """Lets autovacuum pass the tables by: it comes at any time, counts anew, and cuts files to what is in them."""
    query.execute("; ".join(f"alter table {name} set (autovacuum_enabled = off)" for name in _tables(query)))


def _tables(query: Any) -> list[str]:
    query.execute("select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace")
    return [name for (name,) in query.fetchall()]


def believe(query: Any, factor: int) -> None:
    """Lets the planner take each table for `factor` times what it is. By a superuser, on the machine of the server."""
    leave_alone(query)
    analyze(query)
    query.execute(_ALL)
    for name, is_index, rows, pages, path in query.fetchall():
        many = rows * factor
        larger = round(many * _INDEX_ENTRY / _PAGE) if is_index else pages * factor
        size = max(pages, min(larger, _MOST_PAGES))
        query.execute("update pg_class set reltuples = %s, relpages = %s where oid = %s::regclass", (many, size, name))
        if Path(path).stat().st_size < size * _PAGE:
            os.truncate(path, size * _PAGE)
