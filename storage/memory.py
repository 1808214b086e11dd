"""Memory of Redis, watched: past set shares of it, one kind of work after the other stops until it has drained (F7)."""

import time
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from tocsin.domain.errors import Overloaded
from tocsin.storage.redis import info

_FRESH_S = 1.0


class Work(StrEnum):
    """What stops, the earlier the less it matters to what is in motion. Recording, reading and draining never stop."""

    ACCEPT = "new events are taken"
    PLAN = "recipients are planned"
    SEND = "sends begin"


class MemoryGuard:
    """Asks Redis at most once a second. `most` in bytes, as the settings say; what Redis itself is told (its maxmemory)
    holds in any case."""

    def __init__(self, client: Any, *, most: int | None, shares: Mapping[Work, float]) -> None:
        self._client = client
        self._most = most
        self._shares = shares
        self._asked_at = -_FRESH_S
        self._used_share = 0.0

    async def check(self, work: Work) -> None:
        """Raises Overloaded past the share at which `work` stops, and RedisAway."""
        if time.monotonic() - self._asked_at >= _FRESH_S:
            self._asked_at = time.monotonic()
            await self._ask()
        share = self._shares[work]
        if self._used_share >= share:
            raise Overloaded(
                f"Redis has used {self._used_share:.0%} of its memory; no {work} past {share:.0%}, until it has drained"
            )

    async def _ask(self) -> None:
        memory = await info(self._client, "memory")
        limits = [limit for limit in (self._most, memory.get("maxmemory")) if limit]
        self._used_share = memory.get("used_memory", 0) / min(limits) if limits else 0.0
