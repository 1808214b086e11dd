-- Which life of Redis is known, how far its journal was stored, and who can say what was not (docs/adr/0005).

create table lives (
  number bigint generated always as identity primary key,
  epoch text not null unique,
  began_at timestamptz not null default now(),
  lost_at timestamptz,
  cause text not null,
  exact boolean not null,
  took_ms integer not null,
  counts jsonb not null default '{}'
);
comment on table lives is 'Each life of Redis: it begins empty, and with what was rebuilt after it was emptied or rolled back.';
comment on column lives.exact is 'Whether every process told what it knew: then nothing had to be taken for uncertain.';

-- Several rows a life, so that persisters seldom wait for each other; the greatest counts.
create table journal_marks (
  epoch text not null,
  slot smallint not null,
  number bigint not null,
  primary key (epoch, slot)
) with (fillfactor = 50);
comment on table journal_marks is 'The number of the last fact that is stored, written with it.';

create table witnesses (
  name text primary key,
  seen_at timestamptz not null default now(),
  drained_at timestamptz,
  testified text,
  complete boolean not null default true
) with (fillfactor = 50);
comment on table witnesses is 'Processes that tell again what may not be stored when Redis is lost.';
comment on column witnesses.drained_at is 'Up to when everything that the journal held was stored, as this process last saw it.';
comment on column witnesses.testified is 'The life to come for which it has done so; complete, unless it had to let go of something.';
