"""What inboxes and reading take and answer."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field

from tocsin.domain.plan import Priority
from tocsin.http.shapes import Answer, Asked, Listing, Moment, Paging, Query, UserId
from tocsin.storage.queries import InboxRow


class WhoseInbox(Query):
    """Whose inbox; only a key names a user, a user's own token says who it is."""

    user_id: UserId | None = None


class InboxQuery(Paging):
    """Which part of an inbox."""

    user_id: UserId | None = None
    unread: bool = False


class InboxEntry(Answer):
    """One notification in a person's inbox."""

    id: UUID
    event_id: UUID
    type: str
    title: str | None
    message: str
    priority: Priority
    metadata: dict[str, Any]
    read: bool
    read_at: Moment | None
    created_at: Moment


class Inbox(Listing[InboxEntry]):
    """A page of an inbox, newest first."""


class UnreadCount(Answer):
    """How many notifications are unread."""

    unread_count: int


class ReadState(Answer):
    """A notification and whether it is read."""

    id: UUID
    read: bool
    read_at: Moment


class WasRead(Answer):
    """The notification is read, now or since earlier."""

    success: Literal[True] = True
    notification: ReadState


class ReadMultiple(Asked):
    """Which notifications were read."""

    notification_ids: Annotated[tuple[UUID, ...], Field(min_length=1, max_length=1000)]


class Updated(Answer):
    """How many notifications changed, and which."""

    success: Literal[True] = True
    updated_count: int
    updated_ids: tuple[UUID, ...]


class ReadAll(Answer):
    """How many notifications changed."""

    success: Literal[True] = True
    updated_count: int


def entry_of(row: InboxRow) -> InboxEntry:
    """An inbox entry, as shown."""
    return InboxEntry(
        id=row.id,
        event_id=row.event_id,
        type=row.type,
        title=row.title,
        message=row.message,
        priority=Priority(row.priority),
        metadata=row.metadata,
        read=row.read_ms is not None,
        read_at=row.read_ms,
        created_at=row.listed_ms,
    )
