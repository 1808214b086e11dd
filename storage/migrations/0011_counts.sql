-- How many rows of an event stand how (design §5.6). Whoever changes rows adds differences in the same transaction; a job
-- sums them up. What is counted is the sum of both tables, at every moment exactly what counting the rows would tell.

create table event_counts (
  event_id uuid not null,
  channel text not null,
  status text not null,
  reason text not null,
  count bigint not null,
  primary key (event_id, channel, status, reason)
) with (fillfactor = 80);
comment on table event_counts is 'Deliveries of an event by channel, status and reason (or ''''), as far as they are summed up.';
comment on column event_counts.channel is 'Empty for notifications: those MADE, those LISTED in an inbox, those READ.';

create table count_changes (
  event_id uuid not null,
  channel text not null,
  status text not null,
  reason text not null,
  difference bigint not null
);
comment on table count_changes is 'Differences that are not in event_counts yet.';
create index count_changes_of_event on count_changes (event_id);

-- It is filled and emptied all the time, and has to stay small.
alter table count_changes set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
  autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 50000,
  autovacuum_vacuum_cost_delay = 0);
alter table event_counts set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02,
  autovacuum_vacuum_cost_delay = 1);

-- What is there already, while nobody changes it.
lock table notifications, deliveries in share row exclusive mode;

insert into event_counts (event_id, channel, status, reason, count)
select event_id, '', told.status, '', sum(told.count) from notifications note
cross join lateral (values ('MADE', 1), ('LISTED', (listed_at is not null)::integer),
  ('READ', (read_at is not null)::integer)) as told (status, count)
where event_id is not null and told.count > 0
group by event_id, told.status;

insert into event_counts (event_id, channel, status, reason, count)
select event_id, channel, status, coalesce(reason, ''), count(*) from deliveries
where event_id is not null
group by event_id, channel, status, coalesce(reason, '');
