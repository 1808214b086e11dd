-- Who changed since a moment: asked every few seconds, so that a change that Redis did not hear of reaches it.
create index users_by_change on users (updated_at);
create index preferences_by_change on preferences (updated_at);
