-- How facts merge into a delivery, as domain/delivery.py `merge` and domain/shown.py `shown` have it; tests/test_merge.py
-- holds both to the same answers.

-- The union of two histories; of two tellings of one key the earlier stays, and of two as early the lesser text.
create function tocsin_merge(one jsonb, other jsonb) returns jsonb
language sql immutable parallel safe as $$
  select case when one is null then other when other is null then one else one || coalesce((
    select jsonb_object_agg(told.key, told.value)
    from jsonb_each(other) as told
    where not one ? told.key
      or (told.value ->> 'at')::bigint < (one -> told.key ->> 'at')::bigint
      or ((told.value ->> 'at')::bigint = (one -> told.key ->> 'at')::bigint
        and told.value::text collate "C" < (one -> told.key)::text collate "C")
  ), '{}') end
$$;

-- Exact to the millisecond; of what adds intervals to times nothing is immutable, so it could not be inlined.
create function tocsin_time(ms bigint) returns timestamptz
language sql immutable parallel safe as $$
  select to_timestamp(ms::double precision / 1000)
$$;

-- The place of a status among those of one attempt; a later one supersedes an earlier one.
create function tocsin_rank(status text) returns integer
language sql immutable parallel safe as $$
  select array_position(array['SCHEDULED', 'QUEUED', 'RETRYING', 'SENDING', 'UNCERTAIN', 'SUPPRESSED', 'CANCELLED',
    'FAILED', 'DEAD', 'SENT', 'DELIVERED', 'BOUNCED'], status)
$$;

create function tocsin_shown(history jsonb) returns table (
  status text, reason text, attempt_count integer, max_attempts integer, address text, queued_at timestamptz,
  last_attempted_at timestamptz, next_attempt_at timestamptz, sent_at timestamptz, delivered_at timestamptz,
  provider text, provider_id text, provider_status text, error_code text, error_message text, price text,
  segments integer
)
language sql immutable parallel safe as $$
  with told as materialized (
    select split_part(key, ':', 1)::integer as attempt, split_part(key, ':', 2) as status,
      tocsin_rank(split_part(key, ':', 2)) as rank, (value ->> 'at')::bigint as at, key collate "C" as place,
      nullif(substr(key, length(split_part(key, ':', 1)) + length(split_part(key, ':', 2)) + 3), '') as word,
      value as fact
    from jsonb_each(history)
  ), chosen as materialized (
    select attempt, status from (
      select distinct on (attempt) attempt, status from told order by attempt, rank desc
    ) as standing
    order by case
      when status = 'DELIVERED' then 3
      when status = 'SENT' then 2
      when status in ('SCHEDULED', 'QUEUED', 'RETRYING', 'SENDING', 'UNCERTAIN') then 1
      else 0 end desc, attempt desc
    limit 1
  ), current as materialized (
    select told.*, told.status = chosen.status as stands from told join chosen using (attempt)
  ), failure as (
    select fact from told, chosen
    where told.attempt <= chosen.attempt and chosen.status not in ('SENT', 'DELIVERED')
      and (fact ? 'code' or fact ? 'message')
    order by told.attempt desc, rank desc, at desc, place desc limit 1
  ), began as (
    select min(at) as at from told where status in ('SENDING', 'UNCERTAIN', 'SENT', 'DELIVERED', 'BOUNCED')
    group by attempt
  )
  select
    chosen.status,
    (select fact ->> 'reason' from current where stands and fact ? 'reason' order by at desc, place desc limit 1),
    (select count(*)::integer from began),
    (select max((fact ->> 'attempts')::integer) from told),
    (select fact ->> 'address' from current where fact ? 'address' order by rank desc, at desc, place desc limit 1),
    (select tocsin_time(min(at)) from told where status = 'QUEUED'),
    (select tocsin_time(max(at)) from began),
    case when chosen.status = 'RETRYING' then (
      select tocsin_time((fact ->> 'due')::bigint) from current where stands and fact ? 'due'
      order by at desc, place desc limit 1) end,
    (select tocsin_time(min(at)) from current where status in ('SENT', 'DELIVERED', 'BOUNCED')),
    case when chosen.status = 'DELIVERED' then (select tocsin_time(min(at)) from current where stands) end,
    (select fact ->> 'provider' from current where fact ? 'provider' order by rank desc, at desc, place desc limit 1),
    (select fact ->> 'provider_id' from current where fact ? 'provider_id'
      order by rank desc, at desc, place desc limit 1),
    (select coalesce(word, fact ->> 'word') from current where word is not null or fact ? 'word'
      order by rank desc, at desc, place desc limit 1),
    (select fact ->> 'code' from failure),
    (select left(fact ->> 'message', 512) from failure),
    (select fact ->> 'price' from current where fact ? 'price' order by rank desc, at desc, place desc limit 1),
    (select (fact ->> 'segments')::integer from current where fact ? 'segments'
      order by rank desc, at desc, place desc limit 1)
  from chosen
$$;

-- Where an event's fan-out stands: a later status supersedes an earlier one.
create function tocsin_event_rank(status text) returns integer
language sql immutable parallel safe as $$
  select array_position(array['PENDING', 'PROCESSING', 'COMPLETED', 'FAILED'], status)
$$;
