"""The journal: what Postgres has to learn, in order, until Postgres has committed it (design §4, I3).

A stream with one consumer group, so that several persisters share it and what a dead one held is taken up again.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from redis.exceptions import ResponseError

from tocsin.storage.keys import Keys
from tocsin.storage.redis import told
from tocsin.storage.scripts import Scripts

_GROUP = "persisters"
_TAKE_OVER_AFTER_MS = 10_000

Entry = tuple[str, list[dict[str, Any]]]
"""An entry's id in the stream and its facts, which are applied together or not at all."""


class Journal:
    """Reading and trimming the journal; appending is the scripts' part, and `append` for what has no other change."""

    def __init__(self, client: Any, keys: Keys) -> None:
        self._client = client
        self._scripts = Scripts(client, keys)
        self._keys = keys

    async def append(self, facts: list[dict[str, Any]]) -> None:
        """Adds one entry whose change is nowhere else in Redis, such as a receipt."""
        with told():
            await self._client.xadd(self._keys.facts, {"d": json.dumps(facts, separators=(",", ":"))})

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
        await self._scripts.run("forget", _GROUP, *entries)

    async def give_back(self, persister: str) -> None:
        """Lets others take at once what this persister held when Postgres went away, itself included."""
        with told():
            pending = await self._client.xpending_range(
                self._keys.facts, _GROUP, min="-", max="+", count=1000, consumername=persister
            )
            if pending:
                ids = [entry["message_id"] for entry in pending]
                await self._client.xclaim(
                    self._keys.facts, _GROUP, persister, min_idle_time=0, message_ids=ids, idle=_TAKE_OVER_AFTER_MS
                )

    async def leave(self, persister: str) -> None:
        """Takes a persister that holds nothing off the group's list."""
        with told():
            try:
                summary = await self._client.xpending_range(
                    self._keys.facts, _GROUP, min="-", max="+", count=1, consumername=persister
                )
                if not summary:
                    await self._client.xgroup_delconsumer(self._keys.facts, _GROUP, persister)
            except ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise

    async def length(self) -> int:
        """How many entries wait."""
        with told():
            return int(await self._client.xlen(self._keys.facts))

    async def oldest_ms(self) -> int | None:
        """When the oldest waiting entry was made; None when none waits."""
        with told():
            first = await self._client.xrange(self._keys.facts, count=1)
        return int(first[0][0].split("-")[0]) if first else None

    async def drained(self, limit_s: float, hopeless: Callable[[], bool] = lambda: False) -> bool:
        """Waits until what is in the journal now is in Postgres; False when that takes longer than `limit_s`, or is
        `hopeless`."""
        with told():
            newest = await self._client.xrevrange(self._keys.facts, count=1)
        if not newest:
            return True
        mark = _order(newest[0][0])
        deadline = asyncio.get_running_loop().time() + limit_s
        while not hopeless() and asyncio.get_running_loop().time() < deadline:
            with told():
                oldest = await self._client.xrange(self._keys.facts, count=1)
            if not oldest or _order(oldest[0][0]) > mark:
                return True
            await asyncio.sleep(0.01)
        return False

    async def _take(self, persister: str, most: int) -> list[Entry]:
        _, entries, *_ = await self._client.xautoclaim(
            self._keys.facts, _GROUP, persister, min_idle_time=_TAKE_OVER_AFTER_MS, count=most
        )
        if not entries:
            answer = await self._client.xreadgroup(_GROUP, persister, {self._keys.facts: ">"}, count=most)
            entries = _entries_of(answer)
        return [(identifier, json.loads(fields["d"])) for identifier, fields in entries if fields]

    async def _make_group(self) -> None:
        try:
            await self._client.xgroup_create(self._keys.facts, _GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise


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
