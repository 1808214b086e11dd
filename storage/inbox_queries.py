"""What is asked about people's inboxes, and marking read. Run by Postgres.call."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from peewee import fn

from tocsin.storage.counting import OF_READ
from tocsin.storage.database import cursor
from tocsin.storage.models import Event, Notification
from tocsin.storage.moments import moment_of, ms_of

# A notification whose routing is not stored yet gets a row with what is known; its facts fill it in (persist.py). The
# commit does not wait for the disk: until it is there the journal holds the read (docs/adr/0015).
_READ: Final = f"""
with changed as (
insert into notifications as known (id, user_id, read_at)
select id, %s, tocsin_time(%s) from unnest(%s::uuid[]) as wanted (id) order by id
on conflict (id) do update set read_at = excluded.read_at
where known.user_id = excluded.user_id and known.read_at is null
returning id, event_id
), counted as ({OF_READ})
select id from changed cross join (select set_config('synchronous_commit', 'off', true)) as unwaited
"""  # noqa: S608  # made of constants

PREPARE_READ: Final = f"prepare read_now (text, bigint, uuid[]) as {_READ % ('$1', '$2', '$3')}"
EXECUTE_READ: Final = "execute read_now (%s, %s, %s)"
"""What `read_now` asks, for one who prepares it."""


@dataclass(frozen=True, slots=True)
class InboxRow:
    """An entry of an inbox; times in ms."""

    id: UUID
    event_id: UUID
    type: str
    title: str | None
    message: str
    priority: str
    metadata: dict[str, Any]
    listed_ms: int
    read_ms: int | None


def inbox(
    user: str, limit: int, before: tuple[int, UUID] | None = None, *, unread_only: bool = False
) -> list[InboxRow]:
    """Up to `limit` entries of an inbox, the newest first; `before` is listed_ms and id of the last one seen."""
    query = _listed(user, unread_only=unread_only).join(Event, on=(Event.id == Notification.event_id), attr="event")
    query = query.select_extend(Event.type, Event.title, Event.message, Event.priority, Event.metadata)
    query = query.where(Event.accepted_at.is_null(False))
    if before is not None:
        place = fn.ROW(moment_of(before[0]), before[1])
        query = query.where(fn.ROW(Notification.listed_at, Notification.id) < place)
    return [_entry(row) for row in query.order_by(*_NEWEST_FIRST).limit(limit)]


def unread_count(user: str, without: Sequence[UUID] = ()) -> int:
    """How many entries of an inbox are unread, leaving out those of `without`."""
    rows = _listed(user, unread_only=True)
    if without:
        rows = rows.where(Notification.id.not_in(list(without)))
    return int(rows.count())


def unread_ids(user: str, limit: int) -> list[UUID]:
    """The unread entries of an inbox, the newest first."""
    return [row.id for row in _listed(user, unread_only=True).order_by(*_NEWEST_FIRST).limit(limit)]


def owner_of(notifications: Sequence[UUID]) -> dict[UUID, str]:
    """Whose each notification is; those that are not known are left out."""
    rows = Notification.select(Notification.id, Notification.user_id).where(Notification.id.in_(list(notifications)))
    return {row.id: row.user_id for row in rows}


def read_times(user: str, notifications: Sequence[UUID]) -> dict[UUID, int | None]:
    """When each was read, in ms; only those that are the user's."""
    rows = Notification.select(Notification.id, Notification.read_at).where(
        Notification.id.in_(list(notifications)), Notification.user_id == user
    )
    return {row.id: ms_of(row.read_at) for row in rows}


def read_now(user: str, notifications: Sequence[UUID], at_ms: int) -> list[UUID]:
    """Marks notifications of `user` read; answers those that were not. One whose facts are not stored yet is the
    user's: the caller knows so from Redis."""
    with cursor() as query:
        query.execute(_READ, (user, at_ms, list(notifications)))
        return [identifier for (identifier,) in query.fetchall()]


_NEWEST_FIRST: Final = (Notification.listed_at.desc(), Notification.id.desc())


def _listed(user: str, *, unread_only: bool) -> Any:
    query = Notification.select(
        Notification.id, Notification.event_id, Notification.listed_at, Notification.read_at
    ).where(Notification.user_id == user, Notification.listed_at.is_null(False))
    return query.where(Notification.read_at.is_null()) if unread_only else query


def _entry(row: Any) -> InboxRow:
    return InboxRow(
        id=row.id,
        event_id=row.event_id,
        type=row.event.type,
        title=row.event.title,
        message=row.event.message,
        priority=row.event.priority,
        metadata=row.event.metadata,
        listed_ms=ms_of(row.listed_at),
        read_ms=ms_of(row.read_at),
    )
