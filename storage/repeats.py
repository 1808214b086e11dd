"""Idempotency-Keys while their request is under way, and for a day after (R9).

Redis tells at once that a request is a repetition; for events the key also lies in Postgres, committed with the event,
so that it holds when Redis was emptied. What Redis was away for it learns when it is back, for by then Postgres may be
away, and nobody else would know.
"""

import asyncio
import json
import time
from collections import deque
from contextlib import suppress
from typing import Any, Final
from uuid import uuid4

from loguru import logger
from redis.exceptions import WatchError

from tocsin.domain.errors import KeyMismatch, RedisAway, StillRunning, Unavailable
from tocsin.storage.accepted_rows import Idempotency
from tocsin.storage.ending import ended
from tocsin.storage.keys import Keys
from tocsin.storage.redis import told

_DAY_S = 86_400
# A process that died with a request frees its key; longer than any request takes.
_RUNNING_S = 60
_MOST_LATE: Final = 100_000
_AGAIN_S: Final = 0.2
_END_S: Final = 0.5
_QUIET_S: Final = 60.0


class Repeats:
    """What was answered to which key."""

    def __init__(self, client: Any, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._taken: dict[str, str] = {}
        """What the requests that are under way here have put in the place of their keys."""
        self._late: deque[tuple[Idempotency, dict[str, Any]]] = deque(maxlen=_MOST_LATE)
        self._keeping: asyncio.Task[None] | None = None
        self._said_s = -_QUIET_S

    async def close(self) -> None:
        """Stops trying to keep what Redis was away for."""
        if self._keeping is not None:
            await ended([self._keeping], _END_S)

    async def begin(self, given: Idempotency) -> dict[str, Any] | None:
        """Takes the key for this request; answers what the first request with it was answered. Raises KeyMismatch,
        StillRunning, RedisAway."""
        place = self._keys.idempotency(given.scope, given.key)
        # When the answer is lost the client sends it again, and must know its own.
        taken = json.dumps({"hash": given.hash, "by": uuid4().hex})
        with told():
            mine = await self._client.set(place, taken, nx=True, ex=_RUNNING_S)
            text = None if mine else await self._client.get(place)
        if text in {None, taken}:
            self._taken[place] = taken
            return None
        known = json.loads(text)
        if known["hash"] != given.hash:
            raise KeyMismatch("this Idempotency-Key was used for another request")
        if "answer" not in known:
            raise StillRunning("the first request with this Idempotency-Key is still running")
        answer: dict[str, Any] = known["answer"]
        return answer

    async def finish(self, given: Idempotency, answer: dict[str, Any]) -> None:
        """Keeps the answer for a day: now, or as soon as Redis is back. Raises Overloaded."""
        self._taken.pop(self._keys.idempotency(given.scope, given.key), None)
        try:
            await self._keep(given, answer)
        except RedisAway:
            self._late.append((given, answer))
            if self._keeping is None or self._keeping.done():
                self._keeping = asyncio.create_task(self._keep_late())

    async def _keep_late(self) -> None:
        while self._late:
            try:
                await self._keep(*self._late[0])
            except Unavailable:
                await asyncio.sleep(_AGAIN_S)
            except Exception:
                self._say_failed()
                # It may be this one alone; the others do not wait for it.
                self._late.rotate(-1)
                await asyncio.sleep(_AGAIN_S)
            else:
                self._late.popleft()

    def _say_failed(self) -> None:
        """Tells the defect that is being handled, unless that was done within the last minute."""
        now_s = time.monotonic()
        if now_s - self._said_s >= _QUIET_S:
            self._said_s = now_s
            logger.exception("what was answered to an Idempotency-Key could not be kept; it is tried again and again")

    async def _keep(self, given: Idempotency, answer: dict[str, Any]) -> None:
        told_again = json.dumps({"hash": given.hash, "answer": answer})
        with told():
            await self._client.set(self._keys.idempotency(given.scope, given.key), told_again, ex=_DAY_S)

    def leave(self, given: Idempotency) -> None:
        """Leaves the key of a request taken for a while, for nobody knows what the request did."""
        self._taken.pop(self._keys.idempotency(given.scope, given.key), None)

    async def abandon(self, given: Idempotency) -> None:
        """Frees the key of a request that did nothing; not one that it never took, or that has an answer by now, which
        another request was given while Redis was away. Raises RedisAway."""
        place = self._keys.idempotency(given.scope, given.key)
        taken = self._taken.pop(place, None)
        if taken is None:
            return
        with told(), suppress(WatchError):
            async with self._client.pipeline(transaction=True) as pipeline:
                await pipeline.watch(place)
                if await pipeline.get(place) == taken:
                    pipeline.multi()
                    pipeline.delete(place)
                    await pipeline.execute()
