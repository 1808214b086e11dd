"""The journal on its way to Postgres: what outages, locks and the end of a process do to it."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from tests.scenes import an_event, routed
from tests.stored import open_store, open_without_postgres, read_times
from tocsin.actors.jobs import Jobs
from tocsin.actors.persist import Persister
from tocsin.domain.delivery import Channel
from tocsin.domain.errors import RedisAway, Unavailable
from tocsin.domain.plan import Step
from tocsin.storage import persist as writer
from tocsin.storage.facts import Entry
from tocsin.storage.store import Store

pytestmark = pytest.mark.servers

NOW = Step(Channel.IN_APP, 0)
LATER = Step(Channel.SMS, 3_600_000)


@pytest.fixture
async def store(redis_url: str, postgres_url: str) -> AsyncIterator[Store]:
    async with open_store(redis_url, postgres_url) as made:
        yield made


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
    await persister.drain()
    assert await store.lists.entries("u1") == []
    assert await store.facts.length() == 0


async def test_entries_whose_giving_out_nobody_heard_are_stored_at_the_next_drain(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (made,) = await routed(store.flights, an_event(NOW), "u1")
    take = store.facts.take

    async def unheard(persister: str, most: int) -> list[Entry]:
        await take(persister, most)
        raise RedisAway("the answer was lost")

    persister = Persister(store, "one")
    monkeypatch.setattr(store.facts, "take", unheard)
    await persister.drain()
    monkeypatch.setattr(store.facts, "take", take)
    await persister.drain()
    assert await read_times(store, "u1", [made.id])
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


async def test_nobody_waits_for_a_drain_into_a_postgres_that_is_away(redis_url: str) -> None:
    async with open_without_postgres(redis_url) as store:
        await routed(store.flights, an_event(NOW), "u1")
        with pytest.raises(Unavailable):
            await store.postgres.ping()
        assert not await asyncio.wait_for(store.caught_up(limit_s=60), 1)


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


async def held_by(store: Store, persister: str) -> int:
    client: Any = store._client
    return len(await client.xpending_range("tocsin:facts", "persisters", "-", "+", 100, consumername=persister))


async def names(store: Store) -> set[str]:
    client: Any = store._client
    return {str(each["name"]) for each in await client.xinfo_consumers("tocsin:facts", "persisters")}


async def test_rows_that_a_frozen_persister_has_locked_hold_up_only_themselves(
    redis_url: str, postgres_url: str
) -> None:
    impatient = {"postgres.statement_timeout": "1s"}
    async with open_store(redis_url, postgres_url, impatient) as store:
        locked, free = [(await routed(store.flights, an_event(LATER), user))[0] for user in ("u1", "u2")]
        await Persister(store, "one").drain()
        with closing(psycopg2.connect(postgres_url)) as frozen, frozen.cursor() as query:
            query.execute("select 1 from notifications where id = %s for update", (str(locked.id),))
            await store.flights.read("u1", [(locked.id, False)])
            await store.flights.read("u2", [(free.id, False)])
            persister = Persister(store, "one")
            await persister.drain()
            assert (await read_times(store, "u2", [free.id]))[free.id]
            assert not (await read_times(store, "u1", [locked.id]))[locked.id]
            frozen.rollback()
        await store.facts.give_back("one")
        await persister.drain()
        assert (await read_times(store, "u1", [locked.id]))[locked.id]


async def test_a_frozen_persister_that_wakes_changes_nothing(store: Store) -> None:
    (made,) = await routed(store.flights, an_event(NOW), "u1")
    held = await store.facts.take("frozen", 64)
    await store.facts.give_back("frozen")
    await Persister(store, "one").drain()
    assert await store.facts.length() == 0
    (later,) = await routed(store.flights, an_event(NOW), "u1")
    await store.postgres.call(writer.store, held)
    await store.stored(held)
    assert [listed.id for listed in await store.lists.entries("u1")] == [later.id]
    await Persister(store, "one").drain()
    assert set(await read_times(store, "u1", [made.id, later.id])) == {made.id, later.id}


async def test_what_a_killed_persister_held_is_stored_and_its_name_goes(store: Store) -> None:
    await routed(store.flights, an_event(NOW), "u1")
    assert await store.facts.take("killed", 64)
    await store.facts.tend(gone_after_ms=0)
    assert "killed" in await names(store)  # it still holds something
    await store.facts.give_back("killed")
    await Persister(store, "one").drain()
    await store.facts.tend(gone_after_ms=0)
    assert "killed" not in await names(store)
    assert await store.facts.length() == 0


async def test_a_persister_that_has_just_been_at_work_keeps_its_name(store: Store) -> None:
    await routed(store.flights, an_event(NOW), "u1")
    await Persister(store, "one").drain()
    await store.facts.tend()
    assert await names(store) == {"one"}
    await Persister(store, "one").leave()
    assert await names(store) == set()


async def test_entries_that_nobody_holds_are_taken_anew(store: Store) -> None:
    (made,) = await routed(store.flights, an_event(NOW), "u1")
    client: Any = store._client
    taken = await store.facts.take("one", 64)
    assert taken
    # By hand, or by a Redis that was rolled back: what was pending counts as delivered and is nobody's.
    await client.xgroup_delconsumer("tocsin:facts", "persisters", "one")
    await store.facts.tend()
    await Persister(store, "two").drain()
    assert await read_times(store, "u1", [made.id])
    assert await store.facts.length() == 0


async def test_the_ends_of_a_journal_are_told_without_its_entries(store: Store) -> None:
    assert await store.facts.oldest_ms() is None
    before_ms = time.time_ns() // 1_000_000
    await routed(store.flights, an_event(NOW), "u1")
    oldest_ms = await store.facts.oldest_ms()
    assert oldest_ms is not None
    assert before_ms - 1_000 < oldest_ms <= time.time_ns() // 1_000_000 + 1_000
