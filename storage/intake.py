"""Accepting events: into Postgres first, requests that arrive together sharing a commit, then into Redis.

While one commit runs the next batch gathers; there is no timer. With Postgres away the event is taken into Redis with
its fact, if Redis keeps what it is told; with Redis away it is taken into Postgres and entered later.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from loguru import logger

from tocsin.domain.errors import Conflict, PostgresAway, RedisAway, TocsinError, Unavailable
from tocsin.domain.event import Event, Recipient
from tocsin.storage import accepted
from tocsin.storage.accepted import Accepted, Idempotency, Stored
from tocsin.storage.entrance import Entrance
from tocsin.storage.memory import MemoryGuard, Work
from tocsin.storage.postgres import Postgres

_MOST_TOGETHER = 200
_SETTLED_S = 5
"""For so long after Redis came back others may be about to tell it the keys that it was away for (repeats.py)."""
COMMIT_MS = 3_000
"""What a caller may wait for Postgres; after that the event rests in Redis, whether Postgres has it or not."""

_Waiting = tuple[Accepted, "asyncio.Future[Stored]"]


@dataclass(frozen=True, slots=True)
class Taken:
    """That an event was taken: `durability` is "postgres" or "redis"; `replay` the answer that its idempotency key was
    given before, in which case nothing was taken now. `told` is what else is answered of an event with a key."""

    durability: str
    replay: dict[str, Any] | None = None
    told: dict[str, Any] = field(default_factory=dict)


class Intake:
    """Takes events on one event loop."""

    def __init__(
        self,
        entrance: Entrance,
        postgres: Postgres,
        memory: MemoryGuard,
        learn: Callable[[], Awaitable[None]],
        redis_settled_s: Callable[[], Awaitable[float]],
    ) -> None:
        self._learn = learn
        self._redis_settled_s = redis_settled_s
        self._entrance = entrance
        self._memory = memory
        self._postgres = postgres
        self._gathering: list[_Waiting] = []
        self._committing: asyncio.Task[None] | None = None
        self._entering: set[asyncio.Task[None]] = set()
        self.redis_is_durable = False
        """Whether Redis has AOF on, so that an event may rest in it alone."""

    async def take(self, row: Accepted) -> Taken:
        """Takes one event. Raises Unavailable when neither store can keep it (Overloaded when Redis is nearly full),
        Conflict when its idempotency key was used for another request."""
        with suppress(RedisAway):
            await self._memory.check(Work.ACCEPT)
        try:
            stored = await self._commit(row)
        except PostgresAway:
            return await self.take_into_redis(row)
        return Taken("postgres", stored.replay)

    async def take_into_redis(self, row: Accepted) -> Taken:
        """Takes an event that Postgres does not have. Raises what `check_redis` does."""
        await self.check_redis(row)
        await self._entrance.enter_alone(row, fact_of(row.event, row.recipients, row.idempotency))
        return Taken("redis")

    async def check_redis(self, row: Accepted) -> None:
        """Raises PostgresAway where Redis does not keep what it is told, or may not know yet that the request comes
        again."""
        if not self.redis_is_durable:
            # It may have been away when it was asked.
            await self._learn()
        if not self.redis_is_durable:
            raise PostgresAway("Postgres is away and Redis does not keep what it is told (appendonly is off)")
        if row.idempotency is not None and await self._redis_settled_s() < _SETTLED_S:
            raise PostgresAway("Postgres is away, and Redis has come back too lately to know each Idempotency-Key")

    async def _commit(self, row: Accepted) -> Stored:
        future: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        self._gathering.append((row, future))
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit_gathered())
        return await future

    async def _commit_gathered(self) -> None:
        while self._gathering:
            batch, self._gathering = self._gathering[:_MOST_TOGETHER], self._gathering[_MOST_TOGETHER:]
            try:
                rows = [row for row, _ in batch]
                answers = await self._postgres.call_within(COMMIT_MS, accepted.store_accepted, rows)
            except (Unavailable, Conflict) as error:
                _answer(batch, [error] * len(batch))
            except Exception as error:  # whatever it is, those who wait must hear of it
                _answer(batch, [error] * len(batch))
            else:
                # The next commit runs meanwhile.
                entering = asyncio.create_task(self._enter(batch, answers))
                self._entering.add(entering)
                entering.add_done_callback(self._entering.discard)

    async def _enter(self, batch: Sequence[_Waiting], answers: Sequence[Stored | TocsinError]) -> None:
        taken = [
            row
            for (row, _), answer in zip(batch, answers, strict=True)
            if isinstance(answer, Stored) and answer.replay is None
        ]
        try:
            if taken:
                await self._entrance.enter(taken)
        except Exception:
            logger.exception("{} events are stored and start later", len(taken))
        _answer(batch, answers)


def fact_of(event: Event, recipients: Sequence[Recipient], idempotency: Idempotency | None) -> dict[str, Any]:
    """The `accepted` fact of an event that Postgres does not have yet."""
    return {
        "f": "accepted",
        "event": event.model_dump(mode="json"),
        "recipients": [person.model_dump(mode="json", exclude_none=True) for person in recipients],
        "idempotency": idempotency.as_fact() if idempotency else None,
    }


def _answer(batch: Sequence[_Waiting], answers: Sequence[Stored | Exception]) -> None:
    for (_, future), answer in zip(batch, answers, strict=True):
        if future.done():
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
