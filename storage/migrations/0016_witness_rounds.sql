-- How long a process was silent is counted in rounds, which do not go on while Postgres is away: nobody could say a word.

create table witness_rounds (
  number bigint not null,
  began_at timestamptz not null
) with (fillfactor = 50);
comment on table witness_rounds is 'One row: the round of witnesses. One begins when all that was told before the last one began is stored.';
insert into witness_rounds (number, began_at) values (0, now());

alter table witnesses add column round bigint not null default 0;
comment on column witnesses.round is 'The round in which this process was last seen.';
