-- How facts merge into a delivery, as domain/delivery.py `merge` and domain/shown.py `shown` have it; tests/test_merge.py
-- holds both to the same answers. These run for each row that is told of again. Functions that return a table are made
-- part of the statement that calls them, which costs a third of a call.

-- The union of two histories; of two tellings of one key the earlier stays, and of two as early the lesser text.
create function tocsin_merged(one jsonb, other jsonb) returns table (history jsonb)
language sql immutable parallel safe as $$
  select one || coalesce((
    select jsonb_object_agg(told.key, told.value)
    from jsonb_each(other) as told
    where not one ? told.key
      or (told.value ->> 'at')::bigint < (one -> told.key ->> 'at')::bigint
      or ((told.value ->> 'at')::bigint = (one -> told.key ->> 'at')::bigint
        and told.value::text collate "C" < (one -> told.key)::text collate "C")
  ), '{}')
$$;

create function tocsin_merge(one jsonb, other jsonb) returns jsonb
language sql immutable parallel safe as $$
  select history from tocsin_merged(one, other)
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

-- Facts laid over each other, the last on top.
create aggregate tocsin_overlaid(jsonb) (sfunc = jsonb_concat, stype = jsonb, initcond = '{}', parallel = safe);

create function tocsin_shown(history jsonb) returns table (
  status text, reason text, attempt_count integer, max_attempts integer, address text, queued_at timestamptz,
  last_attempted_at timestamptz, next_attempt_at timestamptz, sent_at timestamptz, delivered_at timestamptz,
  provider text, provider_id text, provider_status text, error_code text, error_message text, price text,
  segments integer
)
language sql immutable parallel safe as $$
  with told as materialized (
    select attempt, status, tocsin_rank(status) as rank, (value ->> 'at')::bigint as at, key collate "C" as place,
      case when word = '' then value else value || jsonb_build_object('word', word) end as fact
    from jsonb_each(history)
    cross join lateral (select split_part(key, ':', 1)::integer, split_part(key, ':', 2)) as named (attempt, status)
    cross join lateral (select substr(key, length(split_part(key, ':', 1)) + length(status) + 3)) as rest (word)
    order by attempt, rank, at, place
  ), chosen as materialized (
    select attempt, rank from (select attempt, max(rank) as rank from told group by attempt) as standing
    order by case
      when rank = tocsin_rank('DELIVERED') then 3
      when rank = tocsin_rank('SENT') then 2
      when rank <= tocsin_rank('UNCERTAIN') then 1
      else 0 end desc, attempt desc
    limit 1
  ), placed as (
    select told.*, told.attempt = chosen.attempt as current, told.attempt = chosen.attempt and told.rank = chosen.rank
      as stands, told.attempt <= chosen.attempt and chosen.rank not in (tocsin_rank('SENT'), tocsin_rank('DELIVERED'))
      and (fact ? 'code' or fact ? 'message') as fails
    from told, chosen
  ), overlaid as (
    select
      max(status) filter (where stands) as status,
      tocsin_overlaid(fact order by attempt, rank, at, place) as whole,
      tocsin_overlaid(fact order by attempt, rank, at, place) filter (where current) as fact,
      tocsin_overlaid(fact order by attempt, rank, at, place) filter (where stands) as standing,
      tocsin_overlaid(jsonb_build_object('code', fact -> 'code', 'message', fact -> 'message')
        order by attempt, rank, at, place) filter (where fails) as failure,
      max((fact ->> 'attempts')::integer) as max_attempts,
      count(distinct attempt) filter (where status in ('SENDING', 'UNCERTAIN', 'SENT', 'DELIVERED', 'BOUNCED')) as tried,
      min(at) filter (where status = 'QUEUED') as queued,
      max(at) filter (where status = 'SENDING') as began,
      min(at) filter (where status in ('UNCERTAIN', 'SENT', 'DELIVERED', 'BOUNCED')) as told_of,
      min(at) filter (where current and status in ('SENT', 'DELIVERED', 'BOUNCED')) as sent,
      min(at) filter (where stands and status = 'DELIVERED') as delivered
    from placed
  )
  select status, standing ->> 'reason', tried::integer, max_attempts,
    coalesce(fact ->> 'address', whole ->> 'address'), tocsin_time(queued), tocsin_time(coalesce(began, told_of)),
    case when status = 'RETRYING' then tocsin_time((standing ->> 'due')::bigint) end,
    tocsin_time(sent), tocsin_time(delivered), fact ->> 'provider', fact ->> 'provider_id', fact ->> 'word',
    failure ->> 'code', left(failure ->> 'message', 512), fact ->> 'price', (fact ->> 'segments')::integer
  from overlaid
$$;

-- Where an event's fan-out stands: a later status supersedes an earlier one.
create function tocsin_event_rank(status text) returns integer
language sql immutable parallel safe as $$
  select array_position(array['PENDING', 'PROCESSING', 'COMPLETED', 'FAILED'], status)
$$;
