"""How calls are taken from Redis."""

import asyncio
import threading
import time
import uuid
from collections.abc import Iterator

import dramatiq
import fakeredis
import pytest
from dramatiq import Message
from loguru import logger

from tests.program import eventually
from tocsin.actors import broker as brokers
from tocsin.actors import outages
from tocsin.actors.broker import WakingBroker
from tocsin.actors.worker import WakingWorker
from tocsin.storage.calls import Calls
from tocsin.storage.keys import Keys
from tocsin.storage.redis import connect_broker
from tocsin.storage.scripts import Scripts


def test_that_redis_is_away_is_said_once_for_all_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brokers, "AWAY_S", 0.01)
    monkeypatch.setattr(outages, "_said", {})
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)))
    broker = WakingBroker(connect_broker("redis://127.0.0.1:1"), Keys("t", "notifications"))
    for queue in ("fan_out", "persist"):
        consumer = broker.consume(queue)
        assert [next(consumer) for _ in range(2)] == [None, None]
    logger.remove(sink)
    assert len(lines) == 1
    assert "127.0.0.1" not in lines[0]


class Called:
    """A worker of one queue on a Redis of its own, and what was called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, idle_s: float = 0.02) -> None:
        monkeypatch.setattr(brokers, "IDLE_S", idle_s)
        self.server = fakeredis.FakeServer()
        self.client = fakeredis.FakeRedis(server=self.server)
        self.broker = WakingBroker(self.client, Keys("t", "notifications"))
        self.seen: list[str] = []
        dramatiq.actor(self.seen.append, actor_name="note", queue_name="q", broker=self.broker)
        self.worker = WakingWorker(self.broker, "q", 1)
        self.worker.start()

    def put(self, *arguments: str, actor: str = "note", data: bytes | None = None, **options: object) -> str:
        """Puts a call into the queue as kick.lua does; `data` in the place of a call."""
        identifier = str(uuid.uuid4())
        message: Message[None] = Message("q", actor, arguments, {}, {"redis_message_id": identifier, **options})
        self.client.hset("t:dramatiq:q.msgs", identifier, message.encode() if data is None else data)
        self.client.rpush("t:dramatiq:q", identifier)
        return identifier

    def stop(self) -> None:
        stopping = threading.Thread(target=self.worker.stop)
        stopping.start()
        while stopping.is_alive():
            self.broker.wake_all()
            stopping.join(0.02)
        self.broker.close()

    def has_seen(self, *wanted: str) -> bool:
        eventually(lambda: len(self.seen) >= len(wanted), limit_s=10)
        return self.seen == list(wanted)

    def leftovers(self) -> set[bytes]:
        """What is in Redis, once what was taken is let go of."""
        eventually(lambda: not any(b"__acks__" in name for name in self.client.keys("*")), limit_s=10)
        return set(self.client.keys("*")) - {b"t:dramatiq:__heartbeats__"}


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> Iterator[Called]:
    made = Called(monkeypatch)
    yield made
    made.stop()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        b"[]",
        b"7",
        b'{"queue_name":"q"}',
        Message("another", "note", (), {}, {"redis_message_id": "x"}).encode(),
        Message("q", "note", (), {}, {}).encode(),
        Message("q", "note", (), {}, {"redis_message_id": "x", "eta": 9_000_000_000_000}).encode(),
    ],
)
def test_what_is_no_call_is_removed_and_holds_nobody_up(called: Called, data: bytes) -> None:
    called.put("one")
    called.put(data=data)
    called.put("two")
    assert called.has_seen("one", "two")
    assert called.leftovers() == set()


def test_a_call_that_lost_its_content_holds_nobody_up(called: Called) -> None:
    called.client.rpush("t:dramatiq:q", "lost")
    called.put("one")
    assert called.has_seen("one")
    assert called.leftovers() == set()


def test_a_call_that_is_put_twice_is_made_twice_at_most(called: Called) -> None:
    identifier = called.put("one")
    called.client.rpush("t:dramatiq:q", identifier)
    called.put("two")
    eventually(lambda: "two" in called.seen, limit_s=10)
    assert called.seen in (["one", "two"], ["one", "one", "two"])
    assert called.leftovers() == set()


def test_a_call_of_an_actor_that_nobody_knows_is_kept_for_an_hour(called: Called) -> None:
    called.put("one", actor="unknown")
    called.put("two")
    assert called.has_seen("two")
    assert called.leftovers() == {b"t:dramatiq:q.XQ", b"t:dramatiq:q.XQ.msgs"}


def test_a_call_with_wrong_arguments_holds_nobody_up(called: Called) -> None:
    called.put("one", "too many")
    called.put("two")
    assert called.has_seen("two")
    assert called.leftovers() == set()


def test_threads_that_wait_for_a_call_end_at_once_when_their_worker_stops(called: Called) -> None:
    called.put("one")
    assert called.has_seen("one")
    began_s = time.monotonic()
    called.worker.stop()
    assert time.monotonic() - began_s < 5, "left alone a thread sleeps for a minute"
    assert not [thread for thread in called.worker.workers if thread.is_alive()]


def test_threads_that_wait_for_a_call_are_not_woken_meanwhile(called: Called) -> None:
    woken: list[float | None] = []
    queue = called.worker.work_queue
    called.put("one")
    assert called.has_seen("one")
    waits = queue.not_empty.wait
    queue.not_empty.wait = lambda limit_s=None: woken.append(limit_s) or waits(limit_s)  # type: ignore[method-assign]
    called.put("two")
    assert called.has_seen("one", "two")
    eventually(lambda: bool(woken), limit_s=10)
    assert min(limit_s or 0 for limit_s in woken) >= 30


async def test_a_call_whose_word_was_lost_is_found_while_its_consumer_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brokers, "LOOK_S", 0.02)
    called = Called(monkeypatch, idle_s=60)
    asleep = called.broker.bell("q")._cond._waiters  # type: ignore[attr-defined]
    await asyncio.to_thread(eventually, lambda: bool(asleep))
    called.put("one")
    client = fakeredis.FakeAsyncRedis(server=called.server, decode_responses=True)
    keys = Keys("t", "notifications")
    watching = asyncio.create_task(called.broker.watch(Calls(client, Scripts(client, keys), keys), ["q", "other"]))
    assert await asyncio.to_thread(called.has_seen, "one")
    watching.cancel()
    await client.aclose()
    await asyncio.to_thread(called.stop)
