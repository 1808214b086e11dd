-- What is asked for by what callers call it: topics of a kind, events with a key.

create index topics_by_kind on topics (kind, key);
create index events_by_key on events (event_key, id) where event_key is not null;
