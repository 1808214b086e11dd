"""Events that Redis hears of later than they are accepted, and the jobs that see to it."""

import time
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from loguru import logger

from tests.scenes import an_event, people, routed
from tests.stored import ask, open_store, open_without_postgres
from tocsin.actors.fan_out import fan_out
from tocsin.actors.jobs import Jobs
from tocsin.actors.persist import Persister
from tocsin.actors.route import route
from tocsin.domain.delivery import Channel
from tocsin.domain.plan import Step
from tocsin.storage.accepted import Accepted, store_accepted
from tocsin.storage.store import Store

pytestmark = pytest.mark.servers

NOW = Step(Channel.IN_APP, 0)
SMS_NOW = Step(Channel.SMS, 0)


@pytest.fixture
async def store(redis_url: str, postgres_url: str) -> AsyncIterator[Store]:
    async with open_store(redis_url, postgres_url) as made:
        yield made


async def test_jobs_begin_one_after_the_other_so_that_nobody_waits_for_all_of_them(store: Store) -> None:
    jobs = Jobs(store, "one", Persister(store, "one").drain)
    jobs.start()
    moments = sorted(job.next_run_time.timestamp() for job in jobs._scheduler.get_jobs())
    jobs.stop()
    assert min(later - earlier for earlier, later in pairwise(moments)) > 0.05
    assert moments[-1] - moments[0] < 1


async def test_an_event_whose_start_is_still_in_an_old_journal_is_not_started_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a day without Postgres the content of an event has left Redis; what became of it waits in the journal."""
    two_days_ago = time.time_ns() // 1_000_000 - 2 * 86_400_000
    event, young = an_event(NOW, accepted_ms=two_days_ago), an_event(NOW, accepted_ms=two_days_ago + 172_000_000)
    await store.postgres.call(store_accepted, [Accepted(event, people("u1")), Accepted(young, people("u1"))])
    await routed(store.flights, event, "u1")
    await store._client.delete(f"tocsin:event:{event.id}")

    async def a_day_ago() -> int:
        return 1_000

    jobs = Jobs(store, "one", Persister(store, "one").drain)
    with monkeypatch.context() as patch:
        patch.setattr(store.facts, "oldest_ms", a_day_ago)
        await jobs._enter_unstarted()
    assert await store.flights.event(event.id) is None
    assert await store.flights.event(young.id) == young
    await Persister(store, "one").drain()
    await jobs._enter_unstarted()
    assert await store.flights.event(event.id) is None


@pytest.mark.parametrize("forgotten", [False, True])
async def test_an_event_that_was_withdrawn_before_it_was_entered_comes_to_its_end_and_sends_nothing(
    store: Store, forgotten: bool
) -> None:
    event, persister = an_event(NOW, SMS_NOW), Persister(store, "one")
    await store.postgres.call(store_accepted, [Accepted(event, people("u1"))])
    await store.stops.withdraw([event.id], "changed plans", "tests", event.accepted_ms)
    await persister.drain()
    if forgotten:
        await store._client.delete(f"tocsin:cancelled:{event.id}")
    await Jobs(store, "one", persister.drain)._enter_unstarted()
    await fan_out(store, str(event.id))
    await route(store, str(event.id), 0)
    await persister.drain()
    assert await store.postgres.call(ask, "select status from events") == [("COMPLETED",)]
    assert await store.postgres.call(ask, "select status, reason from deliveries") == [("CANCELLED", "cancelled")] * 2


async def test_that_redis_is_away_is_said_once_and_not_for_every_event(store: Store, redis_url: str) -> None:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), level="WARNING")
    settings = store.settings.with_values({"redis.url": "redis://127.0.0.1:1"})
    away = await Store.open(settings, store.postgres)
    for _ in range(3):
        taken = await away.accept(an_event(NOW), people("u1"), None)
        assert taken.durability == "postgres"
    logger.remove(sink)
    await away.close()
    assert len([line for line in lines if "Redis" in line]) == 1


async def test_a_redis_that_came_later_may_keep_events_alone(redis_url: str) -> None:
    async with open_without_postgres(redis_url) as store:
        store._intake.redis_is_durable = False
        await store._client.config_set("appendonly", "yes")
        taken = await store.accept(an_event(NOW), people("u1"), None)
        assert taken.durability == "redis"
