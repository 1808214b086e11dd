-- Whom an event is for beyond a list of ids (F1, F2): groups with members, what is known of users, and what they subscribed to.

-- Every read of an audience is a walk in the order of user ids, so that a page ends at an id and the next begins there.
create table topics (
  key text collate "C" primary key,
  kind text not null,
  name text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
comment on table topics is 'Named groups: a family, a community, a region.';

-- Members may be stored before the users they name. The roles lie in the index beside, so that a send to one role of a large
-- topic reads nothing but the index.
create table members (
  topic text collate "C" not null references topics on delete cascade,
  user_id text collate "C" not null,
  roles text[] not null default '{}',
  primary key (topic, user_id) include (roles)
);
comment on table members is 'Who belongs to a topic, and as what.';
create index members_of_user on members (user_id);

alter table users add column attributes jsonb not null default '{}';
comment on column users.attributes is 'What an application knows of a person: by name a text, a number, true or false, or a list of those.';

-- Serves that an attribute is there and that it equals or holds a value. A range is narrowed by it to those who have the
-- attribute at all; filters that hold for many are answered by a walk along the primary key.
create index users_by_attributes on users using gin (attributes);

create table subscriptions (
  user_id text collate "C" not null,
  type text collate "C" not null,
  active boolean not null,
  updated_at timestamptz not null default now(),
  primary key (user_id, type)
);
comment on table subscriptions is 'Which types of events a person wants, where an event is posted to subscribers.';
create index subscribers on subscriptions (type, user_id) where active;

alter table events add column audience jsonb, add column matched bigint, add column horizon text collate "C";
comment on column events.audience is 'Whom the event is for beside its recipients: topics, a filter, subscribers, everyone.';
comment on column events.matched is 'How many people were found until now.';
comment on column events.horizon is 'The last user id whose page was read: nobody of the audience beyond it was ever routed.';
