-- Which attempt a callback speaks of, and which message at the provider it says that is.
alter table callbacks add column delivery_id uuid, add column attempt integer, add column provider_id text collate "C",
  add column word text;
comment on column callbacks.word is 'What became of the message, in the provider''s word.';
create index callbacks_of_delivery on callbacks (delivery_id) where delivery_id is not null;
create index callbacks_of_message on callbacks (provider_id) where provider_id is not null;
create index callbacks_by_time on callbacks (provider, received_at);

-- Those on the channel whose providers give receipts, by when they were sent. The few whose outcome nobody knows have
-- deliveries_held.
create index deliveries_sent_by_sms on deliveries (sent_at) where channel = 'SMS' and sent_at is not null;

create table look_ups (
  delivery_id uuid not null,
  attempt integer not null,
  asked_at timestamptz not null,
  times integer not null default 1,
  result text not null,
  method text,
  confidence text,
  difference_ms bigint,
  provider text,
  provider_id text collate "C",
  word text,
  candidates integer not null default 0,
  primary key (delivery_id, attempt)
);
comment on table look_ups is 'What providers answered when they were asked what became of an attempt; the last answer of each.';
comment on column look_ups.result is
  'FOUND, NOT_FOUND, TIE (several fit, so none was taken), LOW (one fits badly, so it is for a person to judge) or
NOT_ASKED (what it said, or to whom, is not known any more).';
create index look_ups_by_time on look_ups (asked_at);

create table callback_health (
  day date not null,
  provider text not null,
  expected bigint not null,
  received bigint not null,
  late_5m bigint not null,
  late_10m bigint not null,
  never bigint not null,
  delay_ms bigint not null,
  provider_total bigint,
  counted_at timestamptz not null default now(),
  primary key (day, provider)
);
comment on table callback_health is 'Receipts of each day (UTC) and provider; kept when the rows that they were counted from are gone.';
comment on column callback_health.delay_ms is 'The sum of the times from sending to the first receipt, of those received.';
comment on column callback_health.provider_total is 'How many messages the provider itself lists for that day; null where it does not tell.';
