-- What was asked to be stopped (S7).

create table cancellations (
  id uuid primary key,
  at timestamptz not null,
  by text not null,
  cid text not null,
  reason text not null,
  wanted jsonb not null,
  status text not null default 'RUNNING',
  place text not null default '',
  events bigint not null default 0,
  deliveries bigint not null default 0,
  held_until timestamptz,
  ended_at timestamptz
);
comment on table cancellations is 'What was asked to be stopped. It is stopped at once; its rows follow page by page.';
comment on column cancellations.place is 'Where it goes on: the stage and the last id that was done.';
comment on column cancellations.held_until is 'Until when one process has it.';
create index cancellations_running on cancellations (at) where status = 'RUNNING';
create index cancellations_by_time on cancellations (at desc, id desc);
