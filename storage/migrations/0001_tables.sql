-- What happened. Rows are filled in by facts that may come in any order (docs/adr/0001), so whatever a row learns later
-- than its key may be null. Ids of one event begin with its millisecond: its rows lie together in each primary key, and
-- what belongs to an event is found by a range of ids, without an index of its own.

create table events (
  id uuid primary key,
  type text,
  source text,
  title text,
  message text,
  metadata jsonb,
  channels jsonb,
  asked_strategy text,
  strategy text,
  priority text,
  policy text,
  steps jsonb,
  mandatory boolean,
  sender text,
  cid text,
  recipient_count integer,
  unknown_ids jsonb,
  recipients jsonb,
  status text not null default 'PENDING',
  expected bigint,
  error text,
  accepted_at timestamptz,
  started_at timestamptz,
  completed_at timestamptz,
  cancelled_at timestamptz,
  cancel_reason text,
  cancelled_by text
);
comment on table events is 'What callers posted: one row an event, which is its audit too (sender, source, cid).';
comment on column events.recipients is 'The recipients as accepted, with what was given inline for this event.';

-- The few events whose fan-out is not finished, oldest first.
create index events_unfinished on events (accepted_at) where status in ('PENDING', 'PROCESSING');

create table notifications (
  id uuid primary key,
  event_id uuid,
  user_id text collate "C" not null,
  cid text,
  routed_at timestamptz,
  listed_at timestamptz,
  read_at timestamptz
);
comment on table notifications is 'An event for one user.';

create index notifications_inbox on notifications (user_id, listed_at desc, id desc) where listed_at is not null;
create index notifications_unread on notifications (user_id, listed_at desc, id desc)
  where listed_at is not null and read_at is null;

create table deliveries (
  id uuid primary key,
  notification_id uuid not null,
  event_id uuid,
  user_id text collate "C",
  step integer not null,
  channel text not null,
  status text not null,
  reason text,
  attempt_count integer not null,
  max_attempts integer,
  address text,
  scheduled_for timestamptz,
  queued_at timestamptz,
  last_attempted_at timestamptz,
  next_attempt_at timestamptz,
  sent_at timestamptz,
  delivered_at timestamptz,
  provider text,
  provider_id text collate "C",
  provider_status text,
  error_code text,
  error_message text,
  price text,
  segments integer,
  history jsonb not null
) with (fillfactor = 85);
comment on table deliveries is 'A notification on one channel: one step of its plan.';
comment on column deliveries.history is 'Everything known, by "attempt:STATUS"; the columns beside it are made of it.';

create index deliveries_of_notification on deliveries (notification_id);
create index deliveries_of_user on deliveries (user_id, id desc) where user_id is not null;
create index deliveries_of_provider on deliveries (provider_id) where provider_id is not null;

-- Rows come and change all the time; a tenth of a large table is too much to wait for.
alter table notifications set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05,
  autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 1);
alter table deliveries set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05,
  autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 1);

-- One sequence for everybody: a person who is deleted and made again gets a higher version, so that a copy of the old
-- one elsewhere never wins.
create sequence user_versions;

create table users (
  id text collate "C" primary key,
  email text,
  phone text,
  name text,
  locale text,
  timezone text,
  active boolean not null default true,
  version bigint not null default nextval('user_versions'),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

create table devices (
  id uuid primary key default gen_random_uuid(),
  user_id text collate "C" not null references users on delete cascade,
  kind text not null,
  token text not null unique,
  created_at timestamptz not null default now()
);
comment on table devices is 'A token stands for one installation, so it belongs to whoever used it last.';
create index devices_of_user on devices (user_id);

create table preferences (
  user_id text collate "C" primary key,
  opt_outs jsonb not null,
  version bigint not null default nextval('user_versions'),
  updated_at timestamptz not null default now()
);
comment on table preferences is 'What a person switched off; kept for people too who are known only inline.';
create index preferences_with_opt_outs on preferences (user_id) where opt_outs <> '[]';

create table api_keys (
  id uuid primary key default gen_random_uuid(),
  name text not null,
  role text not null check (role in ('admin', 'sender', 'viewer')),
  hash text not null unique,
  created_at timestamptz not null default now(),
  created_by text,
  revoked_at timestamptz
);
comment on column api_keys.hash is 'SHA-256 of the secret, which is shown once and kept nowhere.';
create unique index api_keys_of_name on api_keys (name) where revoked_at is null;

create table idempotency (
  scope text not null,
  key text not null,
  hash text not null,
  event_id uuid not null,
  answer jsonb,
  created_at timestamptz not null default now(),
  primary key (scope, key)
);
create index idempotency_by_age on idempotency (created_at);

create table callbacks (
  provider text not null,
  id text not null,
  received_at timestamptz not null,
  cid text,
  raw jsonb not null,
  primary key (provider, id)
);
comment on table callbacks is 'What providers told us, as they told it.';

create table bad_facts (
  entry_id text primary key,
  facts bytea not null,
  why text not null,
  created_at timestamptz not null default now()
);
comment on column bad_facts.facts is 'JSON as bytes, for it may hold what no text of Postgres can.';

create table audit_log (
  id bigint generated always as identity primary key,
  at timestamptz not null default now(),
  action text not null,
  actor text not null,
  cid text,
  detail jsonb not null default '{}'
);
comment on table audit_log is 'What was done by admins; accepted events are audited by their own row.';
create index audit_log_by_time on audit_log (at);
