-- Notifications and deliveries by time (docs/adr/0012). Their ids begin with the millisecond of their event, so a range
-- of ids is a span of time and the primary key stays as it is. What there is already becomes the first partition as it
-- is, without being written again; those that follow are made by the program (storage/partitions.py).

-- The least id of what began at a moment, for `where id >= tocsin_id_at('2026-11-01')`.
create function tocsin_id_at(at timestamptz) returns uuid
language sql immutable parallel safe as $$
  select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

drop view story;

-- A notification's deliveries have ids that are derived from it, its event's steps and their channels: they are asked
-- for by those. The others were asked for by nothing.
drop index deliveries_of_notification;
drop index look_ups_by_time;
drop index audit_log_by_time;
-- What was received since a moment is asked for without a provider.
drop index callbacks_by_time;
create index callbacks_by_time on callbacks (received_at);

do $$
declare
  ends timestamptz := (date_trunc('month', now() at time zone 'UTC') + interval '1 month') at time zone 'UTC';
  until text := 'until_' || to_char(ends at time zone 'UTC', 'YYYY_MM');
  tab text;
  index record;
begin
  foreach tab in array array['notifications', 'deliveries'] loop
    execute format('alter table %I rename to %I', tab, tab || '_' || until);
    for index in select indexrelid::regclass::text as name, pg_get_indexdef(indexrelid) as made, indisprimary
      from pg_index where indrelid = (tab || '_' || until)::regclass loop
      execute format('alter index %s rename to %I', index.name, replace(index.name, tab, tab || '_' || until));
    end loop;
    execute format('create table %I (like %I including defaults including comments) partition by range (id)',
      tab, tab || '_' || until);
    execute format('alter table %I add constraint %I primary key (id)', tab, tab || '_pkey');
    execute format('create table %I partition of %I default', tab || '_default', tab);
  end loop;
end
$$;

comment on table notifications is 'An event for one user.';
comment on table deliveries is 'A notification on one channel: one step of its plan.';

create index notifications_inbox on notifications (user_id, listed_at desc, id desc) where listed_at is not null;
create index notifications_unread on notifications (user_id, listed_at desc, id desc)
  where listed_at is not null and read_at is null;

create index deliveries_of_user on deliveries (user_id, id desc) where user_id is not null;
create index deliveries_of_provider on deliveries (provider_id) where provider_id is not null;
create index deliveries_open on deliveries (id) where status in ('SCHEDULED', 'QUEUED', 'RETRYING', 'SENDING');
create index deliveries_dead on deliveries (id) where status in ('FAILED', 'DEAD');
create index deliveries_held on deliveries (id) where status = 'UNCERTAIN';
create index deliveries_sent_by_sms on deliveries (sent_at) where channel = 'SMS' and sent_at is not null;
-- Of what a receipt told before anybody told whose it is: looked for among the rows of a large event, by each chunk.
create index deliveries_without_event on deliveries (id) where event_id is null;
-- Those whose messages a provider may have, by whom they are for.
create index deliveries_to_address on deliveries (address) where status in ('RETRYING', 'SENDING', 'UNCERTAIN');
create index deliveries_unconfirmed on deliveries (sent_at) where channel = 'SMS' and status = 'SENT';

-- The rows that are there, whose indexes are those of the new tables by now; what is of a later time goes where the
-- program finds it as it makes that time's partition.
do $$
declare
  ends timestamptz := (date_trunc('month', now() at time zone 'UTC') + interval '1 month') at time zone 'UTC';
  until text := 'until_' || to_char(ends at time zone 'UTC', 'YYYY_MM');
  tab text;
  any_left boolean;
begin
  foreach tab in array array['notifications', 'deliveries'] loop
    execute format('with later as (delete from %I where id >= %L returning *) insert into %I select * from later',
      tab || '_' || until, tocsin_id_at(ends), tab);
    execute format('select exists (select from %I)', tab || '_' || until) into any_left;
    if any_left then
      execute format('alter table %I attach partition %I for values from (minvalue) to (%L)',
        tab, tab || '_' || until, tocsin_id_at(ends));
    else
      execute format('drop table %I', tab || '_' || until);
    end if;
  end loop;
end
$$;

-- For people: one row for everything that is known to have happened, in the order in which it happened. With
-- `where event_id = …` or `where notification_id = …` the rows are found by their ids.
create view story as
select event.id as event_id, event.type, event.title, note.id as notification_id, note.user_id, delivery.step,
  delivery.channel, told.attempt, told.status, told.word as provider_word, told.at, told.reason, told.provider,
  delivery.address, delivery.status as now, note.read_at, event.cid
from events event
join notifications note on note.event_id = event.id
  and note.id >= tocsin_first_id(event.id) and note.id <= tocsin_last_id(event.id)
join deliveries delivery on delivery.notification_id = note.id
  and delivery.id >= tocsin_first_id(note.id) and delivery.id <= tocsin_last_id(note.id)
cross join lateral (
  select split_part(key, ':', 1)::integer as attempt, split_part(key, ':', 2) as status,
    nullif(substr(key, length(split_part(key, ':', 1)) + length(split_part(key, ':', 2)) + 3), '') as word,
    tocsin_time((value ->> 'at')::bigint) as at, value ->> 'reason' as reason, value ->> 'provider' as provider
  from jsonb_each(delivery.history)
) as told;
comment on view story is 'What became of events: select * from story where event_id = … order by at.';
