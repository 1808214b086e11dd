-- What callers call an event by themselves (E3).

alter table events add column event_key text, add column signature text;
comment on column events.event_key is 'The caller''s own name for what it is about; one live event has it.';

create table event_keys (
  key text primary key,
  event_id uuid not null,
  signature text not null,
  at timestamptz not null default now()
);
comment on table event_keys is 'Which event has a key; whether that one is live is seen by what of it has not gone out.';
create index event_keys_by_age on event_keys (at);
