-- What a delivery shows is made anew at each outcome, row by row. Nearly all deliveries have one attempt, which was
-- scheduled, queued, begun, sent and perhaps confirmed, and no word of a provider's: for these a few look-ups do, at a
-- third of the cost. Two histories that do not contradict each other are laid together as they are.

create or replace function tocsin_merged(one jsonb, other jsonb) returns table (history jsonb)
language sql immutable parallel safe as $$
  select case when one || other = other || one then one || other else one || coalesce((
    select jsonb_object_agg(told.key, told.value)
    from jsonb_each(other) as told
    where not one ? told.key
      or (told.value ->> 'at')::bigint < (one -> told.key ->> 'at')::bigint
      or ((told.value ->> 'at')::bigint = (one -> told.key ->> 'at')::bigint
        and told.value::text collate "C" < (one -> told.key)::text collate "C")
  ), '{}') end
  offset 0 -- made once, and not wherever it is used
$$;

alter function tocsin_shown(jsonb) rename to tocsin_shown_of_any;

create function tocsin_is_plain(history jsonb) returns boolean
language sql immutable parallel safe as $$
  select history - array['1:SCHEDULED', '1:QUEUED', '1:SENDING', '1:SENT', '1:DELIVERED'] = '{}'
$$;

create function tocsin_shown_of_plain(history jsonb) returns table (
  status text, reason text, attempt_count integer, max_attempts integer, address text, queued_at timestamptz,
  last_attempted_at timestamptz, next_attempt_at timestamptz, sent_at timestamptz, delivered_at timestamptz,
  provider text, provider_id text, provider_status text, error_code text, error_message text, price text,
  segments integer
)
language sql immutable parallel safe as $$
  select standing.status, standing.fact ->> 'reason', standing.tried::integer,
    greatest((scheduled ->> 'attempts')::integer, (queued ->> 'attempts')::integer, (began ->> 'attempts')::integer,
      (sent ->> 'attempts')::integer, (delivered ->> 'attempts')::integer),
    laid ->> 'address', tocsin_time((queued ->> 'at')::bigint),
    tocsin_time(coalesce((began ->> 'at')::bigint, accepted)), null::timestamptz, tocsin_time(accepted),
    tocsin_time((delivered ->> 'at')::bigint), laid ->> 'provider', laid ->> 'provider_id', laid ->> 'word',
    failure ->> 'code', left(failure ->> 'message', 512), laid ->> 'price', (laid ->> 'segments')::integer
  from (
    select history -> '1:SCHEDULED' as scheduled, history -> '1:QUEUED' as queued, history -> '1:SENDING' as began,
      history -> '1:SENT' as sent, history -> '1:DELIVERED' as delivered
    offset 0
  ) as told
  cross join lateral (
    select coalesce(scheduled, '{}') || coalesce(queued, '{}') || coalesce(began, '{}') || coalesce(sent, '{}')
        || coalesce(delivered, '{}') as laid,
      least((sent ->> 'at')::bigint, (delivered ->> 'at')::bigint) as accepted,
      case
        when sent is not null or delivered is not null then null
        when began ?| array['code', 'message'] then began
        when queued ?| array['code', 'message'] then queued
        else scheduled
      end as failure
    offset 0
  ) as made
  cross join lateral (
    select case when delivered is not null then 'DELIVERED' when sent is not null then 'SENT'
        when began is not null then 'SENDING' when queued is not null then 'QUEUED' else 'SCHEDULED' end as status,
      coalesce(delivered, sent, began, queued, scheduled) as fact,
      coalesce(delivered, sent, began) is not null as tried
    offset 0
  ) as standing
$$;

create function tocsin_shown(history jsonb) returns table (
  status text, reason text, attempt_count integer, max_attempts integer, address text, queued_at timestamptz,
  last_attempted_at timestamptz, next_attempt_at timestamptz, sent_at timestamptz, delivered_at timestamptz,
  provider text, provider_id text, provider_status text, error_code text, error_message text, price text,
  segments integer
)
language sql immutable parallel safe as $$
  select * from tocsin_shown_of_plain(history) where tocsin_is_plain(history)
  union all
  select * from tocsin_shown_of_any(history) where not tocsin_is_plain(history)
$$;
