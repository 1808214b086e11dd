-- Dead letters: deliveries that will not be tried again by themselves, and events that were given up. Few among many, so
-- each index holds nothing else; ids begin with the event's millisecond, so these are in the order of time.
create index deliveries_dead on deliveries (id) where status in ('FAILED', 'DEAD');
create index deliveries_held on deliveries (id) where status = 'UNCERTAIN';
create index events_failed on events (id) where status = 'FAILED';

create table discards (
  id uuid primary key,
  at timestamptz not null default now(),
  by text not null,
  cid text,
  reason text not null
);
comment on table discards is 'Dead letters that somebody put aside, by the id of the delivery or event; a replay takes it back.';

-- How often an event was entered: a replay begins another generation, whose status counts instead of the earlier one's.
alter table events add column generation integer not null default 0;
