"""The journal: what Postgres has to learn, in order, until Postgres has committed it (design §4, I3).

A stream with one consumer group, so that several persisters share it and what a dead one held is taken up again.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import ResponseError

from tocsin.domain.errors import Overloaded
from tocsin.storage.keys import Keys
from tocsin.storage.redis import told
from tocsin.storage.scripts import Scripts

_GROUP = "persisters"
_TAKE_OVER_AFTER_MS = 10_000
_GONE_AFTER_MS = 3_600_000
"""A persister that held nothing and took nothing for so long is taken off the group's list."""
_MOST_SIZES = 10_000
_FAILURES_KEPT_MS = 86_400_000
_LOOK_S, _LONGEST_LOOK_S = 0.01, 0.05

Entry = tuple[str, list[dict[str, Any]]]
"""An entry's id in the stream and its facts, which are applied together or not at all."""


class Journal:
    """Reading and trimming the journal; appending is the scripts' part, and `append` for what has no other change."""

    def __init__(self, client: Any, keys: Keys, scripts: Scripts | None = None) -> None:
        self._client = client
        self._scripts = scripts or Scripts(client, keys)
        self._keys = keys
        self._sizes: dict[str, int] = {}
        """What entries that were taken here hold, in bytes."""

    async def append(self, facts: list[dict[str, Any]]) -> None:
        """Adds one entry whose change is nowhere else in Redis, such as bad facts that are tried again."""
        await self._scripts.run("tell", *(json.dumps(fact, separators=(",", ":")) for fact in facts))
        self._scripts.life.remember(*facts)

    async def take(self, persister: str, most: int) -> list[Entry]:
        """Up to `most` entries that no living persister holds."""
        with told():
            try:
                return await self._take(persister, most)
            except ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                await self._make_group()
                return await self._take(persister, most)

    async def done(self, entries: list[str]) -> None:
        """Forgets entries that Postgres has committed, or refused and kept as bad."""
        sizes = ((entry, self._sizes.pop(entry, "")) for entry in entries)
        await self._scripts.run("forget", _GROUP, *(part for each in sizes for part in each))

    async def give_back(self, persister: str) -> None:
        """Lets others take at once what this persister held when Postgres went away, itself included."""
        with told():
            try:
                pending = await self._client.xpending_range(
                    self._keys.facts, _GROUP, min="-", max="+", count=1000, consumername=persister
                )
                if pending:
                    ids = [entry["message_id"] for entry in pending]
                    await self._client.xclaim(
                        self._keys.facts, _GROUP, persister, min_idle_time=0, message_ids=ids, idle=_TAKE_OVER_AFTER_MS
                    )
            except ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise

    async def failed(self, entry: str) -> int:
        """Counts that an entry met a defect of ours, and answers how often it has; 0 where Redis cannot count now."""
        try:
            with told():
                failures = int(await self._client.hincrby(self._keys.failed_facts, entry, 1))
                await self._client.pexpire(self._keys.failed_facts, _FAILURES_KEPT_MS)
        except Overloaded:
            return 0
        return failures

    async def leave(self, persister: str) -> None:
        """Takes a persister that holds nothing off the group's list."""
        await self._scripts.run("tend", _GROUP, 0, persister)

    async def tend(self, gone_after_ms: int = _GONE_AFTER_MS) -> None:
        """Takes persisters that were killed off the group's list, once others have taken over what they held; and lets
        entries be taken anew that the group counts as delivered though nobody holds them."""
        await self._scripts.run("tend", _GROUP, gone_after_ms, "")

    async def length(self) -> int:
        """How many entries wait."""
        with told():
            return int(await self._client.xlen(self._keys.facts))

    async def oldest_ms(self) -> int | None:
        """When the oldest waiting entry was made; None when none waits."""
        ends = await self._scripts.run("ends")
        return _order(ends[0])[0] if ends else None

    async def drained(self, limit_s: float, hopeless: Callable[[], bool] = lambda: False) -> bool:
        """Waits until what is in the journal now is in Postgres, or lies in bad_facts; False when that takes longer
        than `limit_s`, or is `hopeless`."""
        ends = await self._scripts.run("ends")
        mark = _order(ends[1]) if ends else (0, 0)
        deadline, pause_s = asyncio.get_running_loop().time() + limit_s, _LOOK_S
        while ends and _order(ends[0]) <= mark:
            if hopeless() or asyncio.get_running_loop().time() >= deadline:
                return False
            await asyncio.sleep(pause_s)
            pause_s = min(_LONGEST_LOOK_S, pause_s * 1.2)
            ends = await self._scripts.run("ends")
        return True

    async def _take(self, persister: str, most: int) -> list[Entry]:
        _, left, *_ = await self._client.xautoclaim(
            self._keys.facts, _GROUP, persister, min_idle_time=_TAKE_OVER_AFTER_MS, count=most
        )
        # Redis 6.2 goes on naming entries that somebody deleted by hand, without their fields.
        if entries := self._read(left):
            return entries
        answer = await self._client.xreadgroup(_GROUP, persister, {self._keys.facts: ">"}, count=most)
        return self._read(_entries_of(answer))

    def _read(self, entries: Sequence[tuple[str, dict[str, str]]]) -> list[Entry]:
        if len(self._sizes) > _MOST_SIZES:
            self._sizes.clear()
        for identifier, fields in entries:
            text = (fields or {}).get("d", "")
            self._sizes[identifier] = len(text) if text.isascii() else len(text.encode())
        return [(identifier, _facts_of(fields)) for identifier, fields in entries if fields]

    async def _make_group(self) -> None:
        await self._scripts.run("group", _GROUP)


def _facts_of(fields: dict[str, str]) -> list[dict[str, Any]]:
    """The facts of an entry. One that cannot be read becomes a fact that Postgres refuses, so that it is kept as bad
    and holds no other back."""
    try:
        facts = json.loads(fields["d"])
    except (KeyError, ValueError):
        facts = None
    return facts if isinstance(facts, list) else [{"f": "unreadable", "fields": fields}]


def _entries_of(answer: Any) -> list[Any]:
    """The entries in what XREADGROUP answers: a list of streams, or in RESP3 a map of them."""
    if not answer:
        return []
    if isinstance(answer, dict):
        (batches,) = answer.values()
        return list(batches[0]) if batches and isinstance(batches[0], list) else list(batches)
    return list(answer[0][1])


def _order(identifier: str) -> tuple[int, int]:
    milliseconds, sequence = identifier.split("-")
    return int(milliseconds), int(sequence)
