-- What reconciliation found, run by run.
create table reconciliations (
  id uuid primary key default gen_random_uuid(),
  started_at timestamptz not null,
  ended_at timestamptz not null,
  started_by text not null,
  repair boolean not null,
  whole boolean not null,
  ledger bigint not null,
  actual bigint not null,
  difference bigint not null,
  not_judged bigint not null,
  in_sync boolean not null,
  checks jsonb not null,
  worst jsonb not null,
  providers jsonb not null,
  preflight jsonb
);
comment on table reconciliations is 'Postgres against Redis against the providers: what was found, mended and left, run by run.';
create index reconciliations_by_time on reconciliations (started_at desc, id desc);

-- Where the next run goes on, and what the last one saw for the first time. One row.
create table reconciliation_place (
  one boolean primary key default true check (one),
  place jsonb not null
);

-- Events whose fan-out ended, in the order in which it did: each is counted once against its recipients.
create index events_completed on events (completed_at, id) where status = 'COMPLETED';

-- The few SMS that were sent and never confirmed, by when they were sent.
create index deliveries_unconfirmed on deliveries (sent_at) where channel = 'SMS' and status = 'SENT';
