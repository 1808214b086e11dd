"""What a person gets: the inbox, what was read, and how each delivery fares."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, TypeVar
from uuid import UUID

from pydantic import Field

from tocsin.domain import ids
from tocsin.domain.errors import NotFound
from tocsin.domain.plan import Priority
from tocsin.http.caller import USERS, VIEWERS_AND_USER
from tocsin.http.cursors import cursor_of, place_of
from tocsin.http.delivery_shapes import DeliveryStatus, NotificationJourney, journey_of, status_of
from tocsin.http.endpoint import Call, Endpoint
from tocsin.http.problems import (
    BAD_CURSOR,
    BAD_USER_ID,
    MISSING_FIELD,
    NOT_FOUND,
    TOO_MANY,
    FieldError,
    from_errors,
)
from tocsin.http.shapes import Answer, Asked, Listing, Moment, NoQuery, Paging, Query, UserId
from tocsin.storage import queries
from tocsin.storage.queries import InboxRow

_READ_AT_ONCE: Final = 1_000

_YOUNG_MS: Final = 10_000
_TRIES_WHEN_YOUNG: Final = 20
_BETWEEN_TRIES_S: Final = 0.05

Told = TypeVar("Told", queries.NotificationStatus, queries.Journey)


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


async def list_notifications(call: Call[None, InboxQuery]) -> Inbox:
    """The inbox, newest first. A user sees their own; a key names the user by `userId`."""
    query = call.query
    before = place_of(query.cursor) if query.cursor else None
    page = await call.context.store.inbox.page(
        _whose(call, query.user_id), query.limit, before, unread_only=query.unread
    )
    return Inbox(data=tuple(map(entry_of, page.rows)), next_cursor=cursor_of(*page.next) if page.next else None)


async def get_unread_count(call: Call[None, WhoseInbox]) -> UnreadCount:
    """How many notifications of the inbox are unread."""
    return UnreadCount(unread_count=await call.context.store.inbox.unread_count(_whose(call, call.query.user_id)))


async def read_notification(call: Call[None, NoQuery]) -> WasRead:
    """Once this is answered, no further delivery of the notification starts."""
    (read,) = await call.context.store.read(call.caller.name, [call.id("notification")])
    if not read.found or read.read_ms is None:
        raise NotFound
    return WasRead(notification=ReadState(id=read.id, read=True, read_at=read.read_ms))


async def read_multiple(call: Call[ReadMultiple, NoQuery]) -> Updated:
    """Counts and names only what changed: not what was read before, does not exist, or is another's."""
    asked = list(dict.fromkeys(call.body.notification_ids))
    changed = [read.id for read in await call.context.store.read(call.caller.name, asked) if read.changed]
    return Updated(updated_count=len(changed), updated_ids=tuple(changed))


async def read_all(call: Call[None, NoQuery]) -> ReadAll:
    """Everything that is unread in the inbox."""
    store, user, count = call.context.store, call.caller.name, 0
    while unread := await store.inbox.unread_ids(user, _READ_AT_ONCE):
        changed = sum(read.changed for read in await store.read(user, unread))
        count += changed
        # Without progress another round would bring the same again.
        if not changed or len(unread) < _READ_AT_ONCE:
            break
    return ReadAll(updated_count=count)


async def get_delivery_status(call: Call[None, NoQuery]) -> DeliveryStatus:
    """Where each delivery of a notification stands."""
    return status_of(await _own(call, queries.delivery_status))


async def get_journey(call: Call[None, NoQuery]) -> NotificationJourney:
    """Everything that happened to a notification, across its channels."""
    return journey_of(await _own(call, queries.journey))


async def _own(call: Call[None, NoQuery], query: Callable[[UUID], Told | None]) -> Told:
    """What `query` tells of the notification that the path names. One that was posted a moment ago may not be routed
    yet; its poster need not know that. Raises NotFound."""
    notification, store = call.id("notification"), call.context.store
    age_ms = time.time_ns() // 1_000_000 - ids.start_ms(notification)
    tries = _TRIES_WHEN_YOUNG if 0 <= age_ms < _YOUNG_MS else 1
    for left in reversed(range(tries)):
        await store.settled()
        found = await store.postgres.call(query, notification)
        if found is not None:
            break
        if left:
            await asyncio.sleep(_BETWEEN_TRIES_S)
    if found is None or call.caller.user not in {None, found.notification.user_id}:
        raise NotFound
    return found


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


def _whose(call: Call[Any, Any], named: str | None) -> str:
    """The user whose inbox is asked for. Raises Problem for a key that names nobody, NotFound for a user who names
    another."""
    own = call.caller.user
    if own is None:
        if named is None:
            raise from_errors([FieldError(MISSING_FIELD, "userId", "A key says whose inbox it asks for.")])
        return named
    if named not in {None, own}:
        raise NotFound
    return own


_PATH: Final = "/api/notifications"
_ONE: Final = f"{_PATH}/{{notification}}"
_TAG: Final = "notifications"

ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path=_PATH,
        handler=list_notifications,
        summary="A person's inbox",
        tag=_TAG,
        who=VIEWERS_AND_USER,
        query=InboxQuery,
        answer=Inbox,
        problems=(BAD_CURSOR, BAD_USER_ID, NOT_FOUND),
    ),
    Endpoint(
        method="GET",
        path=f"{_PATH}/unread-count",
        handler=get_unread_count,
        summary="How many are unread",
        tag=_TAG,
        who=VIEWERS_AND_USER,
        query=WhoseInbox,
        answer=UnreadCount,
        problems=(BAD_USER_ID, NOT_FOUND),
    ),
    Endpoint(
        method="POST",
        path=f"{_PATH}/read-multiple",
        handler=read_multiple,
        summary="Mark several read",
        tag=_TAG,
        who=USERS,
        body=ReadMultiple,
        answer=Updated,
        problems=(TOO_MANY,),
    ),
    Endpoint(
        method="POST",
        path=f"{_PATH}/read-all",
        handler=read_all,
        summary="Mark everything read",
        tag=_TAG,
        who=USERS,
        answer=ReadAll,
    ),
    Endpoint(
        method="POST",
        path=f"{_ONE}/read",
        handler=read_notification,
        summary="Mark one read",
        tag=_TAG,
        who=USERS,
        answer=WasRead,
    ),
    Endpoint(
        method="GET",
        path=f"{_ONE}/delivery-status",
        handler=get_delivery_status,
        summary="Where each delivery stands",
        tag=_TAG,
        who=VIEWERS_AND_USER,
        answer=DeliveryStatus,
    ),
    Endpoint(
        method="GET",
        path=f"{_ONE}/journey",
        handler=get_journey,
        summary="Everything that happened to a notification",
        tag=_TAG,
        who=VIEWERS_AND_USER,
        answer=NotificationJourney,
    ),
)
