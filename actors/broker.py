"""Dramatiq's broker over Redis, woken instead of polling.

A stock consumer asks Redis ten times a second to be quick; for the six queues of one process that is a tenth of a core
while nothing happens. Ours waits for a word on `<namespace>:wake`, which every call publishes. Should a word be lost,
the call is found by one look at all queues; a consumer asks by itself only to be known as alive. Delays and retries are
not Dramatiq's here (docs/adr/0002), so the delay queues and their consumers are left out.
"""

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Collection
from typing import Any, Final

import dramatiq
from dramatiq import Message, MessageProxy
from dramatiq.brokers.redis import RedisBroker, _RedisConsumer
from dramatiq.errors import ConnectionClosed, DecodeError
from loguru import logger

from tocsin.actors.outages import say, say_failed
from tocsin.domain.errors import RedisAway, Unavailable
from tocsin.storage.calls import Calls, correlation
from tocsin.storage.keys import Keys
from tocsin.storage.redis import told

IDLE_S = 15.0
"""How long a consumer waits for a word before it looks by itself. After a minute Dramatiq takes a process that asks for
nothing for dead."""
AWAY_S = 2.0
"""How long it waits where Redis did not answer."""
LOOK_S = 2.0
"""How long a call may wait whose word was lost."""
_TIDIES: Final = 7_500
"""Of a million of its questions, how many let Redis look for what dead processes had taken. Dramatiq's own thousand are
for consumers that ask ten times a second."""


class Correlation(dramatiq.Middleware):
    """Gives the actor the correlation id of whoever called it."""

    def before_process_message(self, broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:
        correlation.set(message.options.get("cid", "-"))


class WakingConsumer(_RedisConsumer):
    """A consumer that sleeps until its queue is woken. Dramatiq has no public one to build on."""

    def __next__(self) -> Any:
        bell = self.broker.bell(self.queue_name)
        bell.clear()
        message, wait_s = None, IDLE_S
        try:
            with told():
                message = self._next_at_once()
        except ConnectionClosed:
            # Dramatiq would say so for every queue, every few seconds.
            wait_s = AWAY_S
            say("the taking of calls", RedisAway("Redis does not answer"))
        except Unavailable as error:
            wait_s = AWAY_S
            say("the taking of calls", error)
        if message is None:
            bell.wait(wait_s)
        return message

    def ack(self, message: Any) -> None:
        self._let_go(super().ack, message)

    def nack(self, message: Any) -> None:
        self._let_go(super().nack, message)

    def _let_go(self, how: Callable[[Any], None], message: Any) -> None:
        """A call that Redis does not hear the end of may be made again, which is harmless. Dramatiq would hold its
        thread with it until Redis is back, and say so every five seconds."""
        try:
            with told():
                how(message)
        except ConnectionClosed:
            say("the taking of calls", RedisAway("Redis does not answer"))
        except Unavailable as error:
            say("the taking of calls", error)
        # There is room for another call now; the consumer may have fallen asleep for the lack of it.
        self.broker.wake(self.queue_name)

    def _next_at_once(self) -> MessageProxy | None:
        """The stock consumer sleeps when it found nothing, and restarts after three seconds when it cannot read what it
        found, which then lies with this process until it ends."""
        while True:
            if not self.message_cache and self.outstanding_message_count < self.prefetch:
                room = self.prefetch - self.outstanding_message_count
                self.message_cache = self.broker.do_fetch(self.queue_name, room)
            if not self.message_cache:
                return None
            data = self.message_cache.pop(0)
            if message := self._call_of(data):
                self.queued_message_ids.add(message.message_id)
                return MessageProxy(message)
            self._discard(data)

    def _call_of(self, data: bytes | None) -> Message[Any] | None:
        """The call that was put into the queue; None for what is no call of ours, at which Dramatiq's threads would
        break: another's, one that lost its content, one that is to wait."""
        try:
            message: Message[Any] = Message.decode(data or b"")
            ours = message.queue_name == self.queue_name and "eta" not in message.options
            return message if ours and isinstance(message.options["redis_message_id"], str) else None
        except (DecodeError, KeyError, TypeError, ValueError, AttributeError):
            return None

    def _discard(self, data: bytes | None) -> None:
        """Removes what was taken and is no call. It is told by its content alone."""
        taken = f"{self.broker.namespace}:__acks__.{self.broker.broker_id}.{self.queue_name}"
        messages = f"{self.broker.namespace}:{self.queue_name}.msgs"
        for identifier in self.broker.client.smembers(taken):
            if self.broker.client.hget(messages, identifier) == data:
                self.broker.client.srem(taken, identifier)
                self.broker.client.hdel(messages, identifier)
        logger.error("what lay in the queue {} was no call of ours; it is removed", self.queue_name)


class WakingBroker(RedisBroker):
    """The broker of one process. `wake` is called from any thread."""

    def __init__(self, client: Any, keys: Keys) -> None:
        self._bells: dict[str, threading.Event] = defaultdict(threading.Event)
        super().__init__(  # type: ignore[no-untyped-call]
            client=client,
            namespace=keys.dramatiq,
            middleware=[Correlation()],
            dead_message_ttl=3_600_000,
            maintenance_chance=_TIDIES,
        )

    @property
    def consumer_class(self) -> type[WakingConsumer]:
        return WakingConsumer

    def bell(self, queue: str) -> threading.Event:
        """What a queue's consumer waits for."""
        return self._bells[queue]

    def wake(self, queue: str) -> None:
        """Says that a call was put into `queue`."""
        self._bells[queue].set()

    def wake_all(self) -> None:
        """Lets every consumer look up, so that it sees that it is to stop."""
        for bell in list(self._bells.values()):
            bell.set()

    def declare_queue(self, queue_name: str) -> None:
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    async def watch(self, calls: Calls, queues: Collection[str]) -> None:
        """Wakes those of `queues` in which calls wait, again and again until it is cancelled: their consumers may not
        have heard. One question for all of them, where consumers would ask one by one."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                for queue in await calls.waiting(queues):
                    self.wake(queue)
            except Unavailable as error:
                say("the taking of calls", error)
            except Exception:
                say_failed("looking for calls that wait")
