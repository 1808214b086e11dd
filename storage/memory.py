"""Memory of Redis, watched: past a set share of it nothing new is accepted until it has drained (F7)."""

import time
from typing import Any

from tocsin.domain.errors import Overloaded
from tocsin.storage.redis import info

_FRESH_S = 1.0


class MemoryGuard:
    """Asks Redis at most once a second. `most` in bytes; None: what Redis itself is told (its maxmemory)."""

    def __init__(self, client: Any, *, most: int | None, share: float) -> None:
        self._client = client
        self._most = most
        self._share = share
        self._asked_at = -_FRESH_S
        self._used_share = 0.0

    async def check(self) -> None:
        """Raises Overloaded past the share, and RedisAway."""
        if time.monotonic() - self._asked_at >= _FRESH_S:
            self._asked_at = time.monotonic()
            await self._ask()
        if self._used_share >= self._share:
            raise Overloaded(f"Redis has used {self._used_share:.0%} of its memory; it is draining")

    async def _ask(self) -> None:
        memory = await info(self._client, "memory")
        most = self._most or memory.get("maxmemory") or 0
        self._used_share = memory.get("used_memory", 0) / most if most else 0.0
