"""The journal on its way to Postgres: what bad entries, outages and the end of a process do to it."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import pytest
from loguru import logger

from tests.scenes import an_event, people, routed
from tocsin.actors.jobs import Jobs
from tocsin.actors.persist import Persister
from tocsin.domain.delivery import Channel
from tocsin.domain.errors import RedisAway, Unavailable
from tocsin.domain.plan import Step
from tocsin.domain.settings import load
from tocsin.storage import persist as writer
from tocsin.storage import queries
from tocsin.storage.accepted import Accepted, store_accepted
from tocsin.storage.facts import Entry
from tocsin.storage.postgres import Postgres
from tocsin.storage.store import Store

pytestmark = pytest.mark.servers

NOW = Step(Channel.IN_APP, 0)
NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"


async def opened(redis_url: str, postgres_url: str) -> AsyncIterator[Store]:
    settings = load({}).with_values({"postgres.url": postgres_url, "redis.url": redis_url})
    postgres = Postgres(settings.postgres)
    made = await Store.open(settings, postgres)
    yield made
    await made.close()
    await postgres.close()


@pytest.fixture
async def store(redis_url: str, postgres_url: str) -> AsyncIterator[Store]:
    async for made in opened(redis_url, postgres_url):
        yield made


@pytest.fixture
async def without_postgres(redis_url: str) -> AsyncIterator[Store]:
    async for made in opened(redis_url, NOWHERE):
        yield made


async def read_times(store: Store, user: str, notifications: Sequence[UUID]) -> dict[UUID, int | None]:
    return await store.postgres.call(queries.read_times, user, notifications)


async def test_an_entry_that_meets_a_defect_holds_no_other_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    events = [an_event(NOW) for _ in range(5)]
    routings = [(await routed(store.flights, event, f"u{n}"))[0] for n, event in enumerate(events)]
    write = writer.store

    def defective(entries: Sequence[Entry]) -> None:
        if str(routings[2].id) in str(entries):
            raise AssertionError("a defect")
        write(entries)

    monkeypatch.setattr(writer, "store", defective)
    await Persister(store, "one").drain()
    stored = [bool(await read_times(store, each.user, [each.id])) for each in routings]
    assert stored == [True, True, False, True, True]
    assert await store.facts.length() == 1
    monkeypatch.undo()
    await store.facts.give_back("one")
    await Persister(store, "one").drain()
    assert await read_times(store, "u2", [routings[2].id])


async def test_an_inbox_list_is_trimmed_though_redis_went_away_after_the_commit(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await routed(store.flights, an_event(NOW), "u1")
    trim = store.lists.trim

    async def away(stored: Any) -> None:
        raise RedisAway("no")

    persister = Persister(store, "one")
    monkeypatch.setattr(store.lists, "trim", away)
    await persister.drain()
    monkeypatch.setattr(store.lists, "trim", trim)
    await store.facts.give_back("one")
    await persister.drain()
    assert await store.lists.entries("u1") == []
    assert await store.facts.length() == 0


async def test_the_last_drain_of_a_process_ends_though_more_keeps_coming(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = store.stored

    async def and_one_more(entries: Sequence[Entry]) -> None:
        await stored(entries)
        await routed(store.flights, an_event(NOW), "u1")

    monkeypatch.setattr(store, "stored", and_one_more)
    await routed(store.flights, an_event(NOW), "u1")
    await asyncio.wait_for(Persister(store, "one").drain(limit_s=0.1), 5)


async def test_nobody_waits_for_a_drain_into_a_postgres_that_is_away(without_postgres: Store) -> None:
    store = without_postgres
    await routed(store.flights, an_event(NOW), "u1")
    with pytest.raises(Unavailable):
        await store.postgres.ping()
    assert not await asyncio.wait_for(store.settled(limit_s=60), 1)


async def test_at_the_memory_limit_the_journal_is_drained_without_a_call(store: Store) -> None:
    persister = Persister(store, "one")
    await persister.drain()
    await routed(store.flights, an_event(NOW), "u1")
    jobs = Jobs(store, "one", persister.drain)
    client: Any = store._client
    await client.config_set("maxmemory", "1")
    try:
        await jobs._nudge()
        assert await store.facts.length() == 0
    finally:
        await client.config_set("maxmemory", "0")


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


async def test_a_redis_that_came_later_may_keep_events_alone(without_postgres: Store) -> None:
    store = without_postgres
    store._intake.redis_is_durable = False
    await store._client.config_set("appendonly", "yes")
    taken = await store.accept(an_event(NOW), people("u1"), None)
    assert taken.durability == "redis"
