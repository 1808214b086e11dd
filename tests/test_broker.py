"""How calls are taken from Redis."""

import pytest
from loguru import logger

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
