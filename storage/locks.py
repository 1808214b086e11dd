"""What one process does at a time, or once in a while, whichever it is."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from redis.exceptions import LockError

from tocsin.domain.errors import Unavailable
from tocsin.storage.keys import Keys
from tocsin.storage.redis import told

_LOCK_S = 5.0


class Locks:
    """Locks and reminders in Redis."""

    def __init__(self, client: Any, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    @asynccontextmanager
    async def lock(self, name: str, *, limit_s: float = _LOCK_S) -> AsyncIterator[bool]:
        """Whether this process may do what `name` says now; others may again when it is done, or `limit_s` after its
        death. One that was frozen longer goes on when it wakes, beside another."""
        lock = self._client.lock(self._keys.lock(name), timeout=limit_s, blocking=False)
        with told():
            mine = bool(await lock.acquire())
        holding = asyncio.create_task(_hold(lock, limit_s)) if mine else None
        try:
            yield mine
        finally:
            if holding is not None:
                holding.cancel()
                with suppress(LockError), told():
                    await lock.release()

    async def once(self, name: str, every_ms: int) -> bool:
        """Whether nobody was told so of `name` in the last `every_ms`. Raises RedisAway."""
        with told():
            return bool(await self._client.set(self._keys.once(name), "1", nx=True, px=every_ms))


async def _hold(lock: Any, limit_s: float) -> None:
    """Keeps a lock from running out while its holder lives."""
    while True:
        await asyncio.sleep(limit_s / 3)
        with suppress(Unavailable), told():
            try:
                await lock.reacquire()
            except LockError:
                return
