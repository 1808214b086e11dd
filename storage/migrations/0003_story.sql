-- Ids of one event begin with its millisecond: the first and the last that can.
create function tocsin_first_id(id uuid) returns uuid
language sql immutable parallel safe as $$
  select (left(id::text, 13) || '-0000-0000-000000000000')::uuid
$$;

create function tocsin_last_id(id uuid) returns uuid
language sql immutable parallel safe as $$
  select (left(id::text, 13) || '-ffff-ffff-ffffffffffff')::uuid
$$;

-- For people: one row for everything that is known to have happened, in the order in which it happened. With
-- `where event_id = …` the rows of one event are found by their ids.
create view story as
select event.id as event_id, event.type, event.title, note.id as notification_id, note.user_id, delivery.step,
  delivery.channel, told.attempt, told.status, told.word as provider_word, told.at, told.reason, told.provider,
  delivery.address, delivery.status as now, note.read_at, event.cid
from events event
join notifications note on note.event_id = event.id
  and note.id >= tocsin_first_id(event.id) and note.id <= tocsin_last_id(event.id)
join deliveries delivery on delivery.notification_id = note.id
cross join lateral (
  select split_part(key, ':', 1)::integer as attempt, split_part(key, ':', 2) as status,
    nullif(substr(key, length(split_part(key, ':', 1)) + length(split_part(key, ':', 2)) + 3), '') as word,
    tocsin_time((value ->> 'at')::bigint) as at, value ->> 'reason' as reason, value ->> 'provider' as provider
  from jsonb_each(delivery.history)
) as told;
comment on view story is 'What became of events: select * from story where event_id = … order by at.';
