"""What wakes the open streams of users: one subscription for a process, however many pages are open."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from tocsin.domain.errors import RedisAway
from tocsin.storage.keys import Keys
from tocsin.storage.redis import told

_LOOK_S = 5.0
_AGAIN_S = 0.5


class Wakes:
    """Sets an event when something is published for a user. It only wakes: what is shown comes from storage."""

    def __init__(self, client: Any, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._changing = asyncio.Lock()
        self._subscription: Any = None
        self._reader: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def of(self, user: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set each time something is published for `user`. Raises RedisAway."""
        channel = self._keys.published(user)
        woken = asyncio.Event()
        try:
            await self._join(channel, woken)
            yield woken
        finally:
            await asyncio.shield(self._leave(channel, woken))

    async def _join(self, channel: str, woken: asyncio.Event) -> None:
        async with self._changing:
            self._waiting.setdefault(channel, set()).add(woken)
            if self._subscription is None:
                self._subscription = self._client.pubsub()
            with told():
                await self._subscription.subscribe(channel)
            if self._reader is None:
                self._reader = asyncio.create_task(self._read())

    async def _leave(self, channel: str, woken: asyncio.Event) -> None:
        async with self._changing:
            waiting = self._waiting.get(channel, set())
            waiting.discard(woken)
            if waiting:
                return
            self._waiting.pop(channel, None)
            with suppress(RedisAway), told():
                await self._subscription.unsubscribe(channel)
            if not self._waiting:
                await self._end()

    async def _end(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader
        self._reader = None
        with suppress(RedisAway), told():
            await self._subscription.aclose()
        self._subscription = None

    async def _read(self) -> None:
        while True:
            try:
                with told():
                    message = await self._subscription.get_message(ignore_subscribe_messages=True, timeout=_LOOK_S)
            except RedisAway:
                # Something may have been published meanwhile, so everybody looks.
                self._wake(*self._waiting)
                await asyncio.sleep(_AGAIN_S)
                continue
            if message is not None:
                self._wake(message["channel"])

    def _wake(self, *channels: str) -> None:
        for channel in channels:
            for woken in self._waiting.get(channel, ()):
                woken.set()
