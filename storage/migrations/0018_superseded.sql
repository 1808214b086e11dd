-- An attempt that waits though there is a later one has ended, only nobody can tell how any more (domain/delivery.py
-- `shown_attempt`): Redis was lost with the process that knew. It must not show, or it would be made again.

create or replace function tocsin_shown_of_any(history jsonb) returns table (
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
      when rank <= tocsin_rank('RETRYING') and attempt < (select max(attempt) from told) then 0
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
