"""What is due is called again, until somebody gets to it; but no queue fills with repetitions."""

from typing import Any

import pytest

from tests.scenes import people
from tests.test_rebuild import SMS_NOW, Process, an_event_of, opened
from tocsin.actors.escalation import escalate

pytestmark = pytest.mark.servers

QUEUE = "tocsin:dramatiq:fan_out"


@pytest.fixture
async def process(redis_url: str, postgres_url: str) -> Any:
    async for made in opened(redis_url, postgres_url):
        yield made


async def test_a_queue_that_is_slow_is_not_filled_with_repetitions(process: Process) -> None:
    event = an_event_of(SMS_NOW)
    await process.store.flights.accept(event, people("u1"), None)

    async def again() -> int:
        """It is due once more: how many calls wait then."""
        await process.client.zadd("tocsin:due", {f"e:{event.id}": 0})
        await escalate(process.store, {})
        return int(await process.client.llen(QUEUE))

    await process.client.rpush(QUEUE, *(f"call {number}" for number in range(199)))
    assert [await again() for _ in range(3)] == [200, 200, 200]
    await process.client.delete(QUEUE)
    assert await again() == 1
