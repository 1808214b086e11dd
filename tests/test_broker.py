"""How calls are taken from Redis."""

import uuid
from collections.abc import Iterator

import dramatiq
import fakeredis
import pytest
from dramatiq import Message, Worker
from loguru import logger

from tests.program import eventually
from tocsin.actors import broker as brokers
from tocsin.actors import outages
from tocsin.actors.broker import WakingBroker
from tocsin.storage.keys import Keys
from tocsin.storage.redis import connect_broker


def test_that_redis_is_away_is_said_once_for_all_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brokers, "IDLE_S", 0.01)
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

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(brokers, "IDLE_S", 0.02)
        self.client = fakeredis.FakeRedis()
        self.broker = WakingBroker(self.client, Keys("t", "notifications"))
        self.seen: list[str] = []
        dramatiq.actor(self.seen.append, actor_name="note", queue_name="q", broker=self.broker)
        self.worker = Worker(self.broker, queues={"q"}, worker_threads=1, worker_timeout=50)
        self.worker.start()

    def put(self, *arguments: str, actor: str = "note", data: bytes | None = None, **options: object) -> str:
        """Puts a call into the queue as kick.lua does; `data` in the place of a call."""
        identifier = str(uuid.uuid4())
        message: Message[None] = Message("q", actor, arguments, {}, {"redis_message_id": identifier, **options})
        self.client.hset("t:dramatiq:q.msgs", identifier, message.encode() if data is None else data)
        self.client.rpush("t:dramatiq:q", identifier)
        return identifier

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
    made.worker.stop()
    made.broker.close()


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
