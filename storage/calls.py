"""Calls to actors: messages in Dramatiq's queues, in Dramatiq's own layout, put there without blocking an event loop.

A call carries no state; a lost one is made again by whoever looks at the time index, a doubled one finds nothing to do.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from contextvars import ContextVar
from typing import Any

from dramatiq import Message
from redis.exceptions import RedisError

from tocsin.storage.keys import Keys
from tocsin.storage.redis import told
from tocsin.storage.scripts import Scripts, Step

correlation: ContextVar[str] = ContextVar("correlation", default="-")
"""The correlation id of the work under way, from the request through every actor."""


_AWAY_S = 1.0


class Calls:
    """Puts calls into queues, and hears of calls that others put there."""

    def __init__(self, client: Any, scripts: Scripts, keys: Keys) -> None:
        self._client = client
        self._scripts = scripts
        self._keys = keys

    async def put(self, queue: str, actor: str, *arguments: str | int, most_waiting: int = 0) -> bool:
        """Calls `actor` by its queue; False when `most_waiting` calls wait there already (0: no limit)."""
        step = self.step(queue, actor, *arguments, most_waiting=most_waiting, cid=correlation.get())
        return bool(await self._scripts.run(step.name, *step.arguments))

    async def put_all(self, calls: Sequence[Step]) -> None:
        """Puts calls that `step` made, in one trip."""
        if calls:
            await self._scripts.run_all(calls)

    def step(self, queue: str, actor: str, *arguments: str | int, most_waiting: int = 0, cid: str) -> Step:
        """What `put` runs, to be sent together with other steps."""
        queued_as = str(uuid.uuid4())
        message: Message[Any] = Message(
            queue_name=queue,
            message_id=queued_as,
            actor_name=actor,
            args=arguments,
            kwargs={},
            options={"redis_message_id": queued_as, "cid": cid},
            message_timestamp=int(time.time() * 1000),
        )
        return Step("kick", (queue, most_waiting, queued_as, message.encode().decode()))

    async def listen(self, wake: Callable[[str], None]) -> None:
        """Tells `wake` every queue that a call was put into, until it is cancelled. A word that is lost while Redis is
        away is no harm: who looks for what waits finds the call."""
        while True:
            try:
                async with self._client.pubsub() as subscription:
                    await subscription.subscribe(self._keys.wake)
                    async for message in subscription.listen():
                        if message["type"] == "message":
                            wake(message["data"])
            except (RedisError, OSError):
                await asyncio.sleep(_AWAY_S)

    async def waiting(self, queues: Collection[str]) -> list[str]:
        """Those of `queues` in which calls wait. Raises RedisAway."""
        with told():
            async with self._client.pipeline(transaction=False) as pipeline:
                for queue in queues:
                    pipeline.llen(f"{self._keys.dramatiq}:{queue}")
                lengths = await pipeline.execute()
        return [queue for queue, length in zip(queues, lengths, strict=True) if length]
