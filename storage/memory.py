"""Memory of Redis, watched: past set marks of it, one kind of work after the other stops until it has drained (F7).

Two things are looked at: the share of its memory that is used, and how much the journal holds that Postgres has not
heard of. The second stops what fills the journal most first, for it is the drain that is behind.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tocsin.domain.errors import Overloaded
from tocsin.domain.setting_sections import RedisSettings
from tocsin.storage.keys import Keys
from tocsin.storage.redis import info, told

_FRESH_S = 1.0
_MB = 1_000_000


class Work(StrEnum):
    """What stops, the earlier the less it matters to what is in motion. Recording, reading and draining never stop."""

    ACCEPT = "new events are taken"
    PLAN = "recipients are planned"
    SEND = "sends begin"


@dataclass(frozen=True, slots=True)
class Marks:
    """From where each kind of work stops: by share of Redis's memory, and by bytes that the journal holds. `most` is
    what the settings allow Redis; what Redis itself is told (its maxmemory) holds in any case."""

    shares: Mapping[Work, float]
    journal: Mapping[Work, int]
    most: int | None = None

    @classmethod
    def of(cls, given: RedisSettings) -> "Marks":
        """As the settings have them."""
        shares = {
            Work.ACCEPT: given.max_memory_share,
            Work.PLAN: given.plan_memory_share,
            Work.SEND: given.claim_memory_share,
        }
        journal = {Work.PLAN: given.plan_journal, Work.ACCEPT: given.max_journal, Work.SEND: 2 * given.max_journal}
        return cls(shares, journal, given.max_memory)


class MemoryGuard:
    """Asks Redis at most once a second."""

    def __init__(self, client: Any, keys: Keys, marks: Marks) -> None:
        self._client = client
        self._keys = keys
        self._marks = marks
        self._asked_at = -_FRESH_S
        self._used_share = 0.0
        self._journal_bytes = 0

    async def check(self, work: Work) -> None:
        """Raises Overloaded past the mark at which `work` stops, and RedisAway."""
        if time.monotonic() - self._asked_at >= _FRESH_S:
            self._asked_at = time.monotonic()
            await self._ask()
        share, journal = self._marks.shares[work], self._marks.journal[work]
        # What is sent makes room too: with an empty journal nothing else would.
        if self._used_share >= share and (work is not Work.SEND or self._journal_bytes):
            raise Overloaded(
                f"Redis has used {self._used_share:.0%} of its memory; no {work} past {share:.0%}, until it has drained"
            )
        if self._journal_bytes >= journal:
            raise Overloaded(
                f"Postgres has not heard of {self._journal_bytes // _MB} MB of the journal; no {work} past"
                f" {journal // _MB} MB, until it has"
            )

    async def stopped(self) -> dict[Work, str]:
        """The kinds of work that are stopped now, and why. Raises RedisAway."""
        found = {}
        for work in Work:
            try:
                await self.check(work)
            except Overloaded as error:
                found[work] = str(error)
        return found

    async def _ask(self) -> None:
        memory = await info(self._client, "memory")
        limits = [limit for limit in (self._marks.most, memory.get("maxmemory")) if limit]
        self._used_share = memory.get("used_memory", 0) / min(limits) if limits else 0.0
        with told():
            self._journal_bytes = int(await self._client.get(self._keys.facts_bytes) or 0)
