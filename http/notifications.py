"""What a person gets: the inbox, what was read, and how each delivery fares."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar
from uuid import UUID

from tocsin.domain import ids
from tocsin.domain.errors import NotFound
from tocsin.http.caller import USERS, VIEWERS_AND_USER
from tocsin.http.cursors import cursor_of, place_of
from tocsin.http.delivery_shapes import DeliveryStatus, NotificationJourney, journey_of, status_of
from tocsin.http.endpoint import Call, Endpoint
from tocsin.http.inbox_shapes import (
    Inbox,
    InboxQuery,
    ReadAll,
    ReadMultiple,
    ReadState,
    UnreadCount,
    Updated,
    WasRead,
    WhoseInbox,
    entry_of,
)
from tocsin.http.problems import (
    BAD_CURSOR,
    BAD_USER_ID,
    MISSING_FIELD,
    NOT_FOUND,
    TOO_MANY,
    FieldError,
    from_errors,
)
from tocsin.http.shapes import NoQuery
from tocsin.storage import queries

_READ_AT_ONCE: Final = 1_000

_YOUNG_MS: Final = 10_000
_TRIES_WHEN_YOUNG: Final = 20
_BETWEEN_TRIES_S: Final = 0.05

Told = TypeVar("Told", queries.NotificationStatus, queries.Journey)
Found = TypeVar("Found")


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
    notification = call.id("notification")

    async def look() -> int | None:
        (read,) = await call.context.store.read(call.caller.name, [notification])
        return read.read_ms if read.found else None

    read_ms = await _once_there(notification, look)
    return WasRead(notification=ReadState(id=notification, read=True, read_at=read_ms))


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
    """What `query` tells of the notification that the path names. Raises NotFound, also for another's."""
    notification, store = call.id("notification"), call.context.store

    async def look() -> Told | None:
        await store.caught_up()
        return await store.postgres.call(query, notification)

    found = await _once_there(notification, look)
    if call.caller.user not in {None, found.notification.user_id}:
        raise NotFound
    return found


async def _once_there(notification: UUID, look: Callable[[], Awaitable[Found | None]]) -> Found:
    """What `look` finds. One that was posted a moment ago may not be routed yet; its poster need not know that. Raises
    NotFound."""
    age_ms = time.time_ns() // 1_000_000 - ids.start_ms(notification)
    tries = _TRIES_WHEN_YOUNG if 0 <= age_ms < _YOUNG_MS else 1
    for left in reversed(range(tries)):
        found = await look()
        if found is not None:
            return found
        if left:
            await asyncio.sleep(_BETWEEN_TRIES_S)
    raise NotFound


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
