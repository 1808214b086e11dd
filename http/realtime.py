"""`GET /api/stream`: a user's inbox as Server-Sent Events, resumable and without doubles (C4).

What is published in Redis only wakes a stream; what it shows comes from storage. So a page that was away, or is now
connected to another process, misses nothing: it names the last id that it saw and gets what is newer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final
from uuid import UUID

from loguru import logger
from sse_starlette import EventSourceResponse, JSONServerSentEvent, ServerSentEvent
from starlette.responses import Response

from tocsin.domain.errors import PostgresAway, Unavailable
from tocsin.http.caller import USERS
from tocsin.http.context import Context
from tocsin.http.cursors import cursor_of, place_of
from tocsin.http.endpoint import Call, Endpoint
from tocsin.http.inbox_shapes import entry_of
from tocsin.http.problems import BAD_CURSOR
from tocsin.http.shapes import NoQuery
from tocsin.storage.inbox_view import Place
from tocsin.storage.inbox_view import place_of as place_of_row

_MEDIA_TYPE: Final = "text/event-stream"
_PING_S: Final = 15
_COME_BACK_MS: Final = 2_000
# Storage is looked at now and then though nothing woke the stream, for a published word can be lost.
_LOOK_S: Final = 20.0
# With the cache off an entry shows when its commit is through, which may be after that of a later one.
_LATE_MS: Final = 10_000
_MOST_SEEN: Final = 5_000


async def get_stream(call: Call[None, NoQuery]) -> Response:
    """Each new notification is an event `notification`, its data an entry of the inbox; `unread` tells how many are
    unread, after each change. Send the last id seen as `Last-Event-ID` to get what came meanwhile."""
    last = call.request.headers.get("last-event-id")
    after = place_of(last, "Last-Event-ID") if last else None
    await call.context.store.ping()
    if call.request.method == "HEAD":
        return Response(media_type=_MEDIA_TYPE)
    stream = Stream(call.context, call.caller.name, after)
    return EventSourceResponse(stream.events(), ping=_PING_S)


class Stream:
    """One open page of a user."""

    def __init__(self, context: Context, user: str, after: Place | None) -> None:
        self._context = context
        self._inbox = context.store.inbox
        self._user = user
        self._after = after
        self._seen: dict[Place, None] = {}
        self._unread: int | None = None

    async def events(self) -> AsyncIterator[ServerSentEvent]:
        """Subscribes, tells what is newer than the page knows, then goes on until the page or the process ends."""
        try:
            async with self._context.store.wakes.of(self._user) as woken:
                begin = self._after or await self._now()
                self._see(begin)
                yield ServerSentEvent(retry=_COME_BACK_MS, comment="open")
                since = begin
                while not self._context.stopping.is_set():
                    woken.clear()
                    async for told in self._news(since):
                        yield told
                    since = self._late(begin)
                    await self._wait(woken)
        except Unavailable as error:
            # The page comes back by itself, with the last id that it saw.
            logger.info("a stream ends: {}", error)

    async def _now(self) -> Place:
        """After what is in the inbox now; while Postgres cannot tell, after this moment."""
        try:
            return await self._inbox.newest(self._user)
        except PostgresAway:
            return time.time_ns() // 1_000_000, UUID(int=0)

    async def _news(self, since: Place) -> AsyncIterator[ServerSentEvent]:
        for row in await self._inbox.newer(self._user, since):
            place = place_of_row(row)
            if place not in self._seen:
                self._see(place)
                yield ServerSentEvent(entry_of(row).model_dump_json(), event="notification", id=cursor_of(*place))
        with suppress(Unavailable):
            unread = await self._inbox.unread_count(self._user)
            if unread != self._unread:
                self._unread = unread
                yield JSONServerSentEvent({"unreadCount": unread}, event="unread")

    def _see(self, place: Place) -> None:
        self._seen[place] = None
        self._after = max(place, self._after or place)
        while len(self._seen) > _MOST_SEEN:
            del self._seen[next(iter(self._seen))]

    def _late(self, begin: Place) -> Place:
        """From where to look again: a little before the newest entry told, but never before the page began."""
        assert self._after is not None  # noqa: S101  # set with the first place seen
        newest_ms, _ = self._after
        return max(begin, (newest_ms - _LATE_MS, begin[1]))

    async def _wait(self, woken: asyncio.Event) -> None:
        waits: list[asyncio.Task[Any]] = [
            asyncio.create_task(woken.wait()),
            asyncio.create_task(self._context.stopping.wait()),
        ]
        try:
            await asyncio.wait(waits, timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path="/api/stream",
        handler=get_stream,
        summary="The inbox as it grows",
        tag="notifications",
        who=USERS,
        media_type=_MEDIA_TYPE,
        problems=(BAD_CURSOR,),
        parameters=(
            {
                "name": "Last-Event-ID",
                "in": "header",
                "description": "The id of the last event seen.",
                "schema": {"type": "string"},
            },
        ),
    ),
)
