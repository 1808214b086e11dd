"""The journal on its way to Postgres: what bad entries, outages and the end of a process do to it."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import closing
from itertools import pairwise
from typing import Any
from uuid import UUID

import psycopg2
import pytest
from loguru import logger

from tests.scenes import an_event, people, routed
from tests.stored import ask
from tocsin.actors.fan_out import fan_out
from tocsin.actors.jobs import Jobs
from tocsin.actors.persist import Persister
from tocsin.actors.route import route
from tocsin.domain.delivery import Channel
from tocsin.domain.errors import RedisAway, Unavailable
from tocsin.domain.plan import Step
from tocsin.domain.settings import load
from tocsin.storage import bad_facts as bad_facts_kept
from tocsin.storage import persist as writer
from tocsin.storage import queries
from tocsin.storage.accepted import Accepted, store_accepted
from tocsin.storage.by import By
from tocsin.storage.facts import Entry
from tocsin.storage.postgres import Postgres
from tocsin.storage.store import Store

pytestmark = pytest.mark.servers

NOW = Step(Channel.IN_APP, 0)
SMS_NOW = Step(Channel.SMS, 0)
LATER = Step(Channel.SMS, 3_600_000)
NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"


async def opened(redis_url: str, postgres_url: str, more: Mapping[str, Any] | None = None) -> AsyncIterator[Store]:
    settings = load({}).with_values({"postgres.url": postgres_url, "redis.url": redis_url, **(more or {})})
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
        made.life.adopt("", 0)
        yield made


async def read_times(store: Store, user: str, notifications: Sequence[UUID]) -> dict[UUID, int | None]:
    return await store.postgres.call(queries.read_times, user, notifications)


async def test_an_entry_that_meets_a_defect_holds_no_other_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    events = [an_event(NOW) for _ in range(5)]
    routings = [(await routed(store.flights, event, f"u{n}"))[0] for n, event in enumerate(events)]
    write = writer.store

    def defective(entries: Sequence[Entry], **how: Any) -> None:
        if str(routings[2].id) in str(entries):
            raise AssertionError("a defect")
        write(entries, **how)

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


async def test_nobody_waits_for_a_drain_into_a_postgres_that_is_away(without_postgres: Store) -> None:
    store = without_postgres
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


async def test_a_redis_that_came_later_may_keep_events_alone(without_postgres: Store) -> None:
    store = without_postgres
    store._intake.redis_is_durable = False
    await store._client.config_set("appendonly", "yes")
    taken = await store.accept(an_event(NOW), people("u1"), None)
    assert taken.durability == "redis"


async def bad_facts(store: Store) -> list[tuple[str, str]]:
    """(facts, why) of what is kept as bad."""

    def look() -> list[tuple[str, str]]:
        return [(kept.tobytes().decode(), why) for kept, why in ask("select facts, why from bad_facts order by 1")]

    return await store.postgres.call(look)


async def held_by(store: Store, persister: str) -> int:
    client: Any = store._client
    return len(await client.xpending_range("tocsin:facts", "persisters", "-", "+", 100, consumername=persister))


async def names(store: Store) -> set[str]:
    client: Any = store._client
    return {str(each["name"]) for each in await client.xinfo_consumers("tocsin:facts", "persisters")}


async def test_an_entry_that_cannot_be_read_is_kept_as_bad_and_holds_no_other_back(store: Store) -> None:
    client: Any = store._client
    for fields in ({"d": '[{"f":'}, {"d": "7"}, {"x": "y"}):
        await client.xadd("tocsin:facts", fields)
    (made,) = await routed(store.flights, an_event(NOW), "u1")
    await Persister(store, "one").drain()
    assert await read_times(store, "u1", [made.id])
    assert await store.facts.length() == 0
    assert len(await bad_facts(store)) == 3


async def test_an_entry_that_meets_a_defect_each_time_is_kept_as_bad_in_the_end(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defective(entries: Sequence[Entry], **_: Any) -> None:
        raise AssertionError("a defect")

    monkeypatch.setattr(writer, "store", defective)
    (made,) = await routed(store.flights, an_event(NOW), "u1")
    entries, rounds = await store.facts.length(), 0
    while await store.facts.length():
        await Persister(store, "one").drain()
        await store.facts.give_back("one")
        rounds += 1
    kept = await bad_facts(store)
    assert (rounds, len(kept)) == (5, entries)
    assert any(str(made.id) in facts for facts, _ in kept)
    assert await store.facts.drained(0)


async def test_rows_that_a_frozen_persister_has_locked_hold_up_only_themselves(
    redis_url: str, postgres_url: str
) -> None:
    impatient = {"postgres.statement_timeout": "1s"}
    async for store in opened(redis_url, postgres_url, impatient):
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


async def test_a_key_of_somebody_else_under_a_lists_name_stops_nobody(store: Store) -> None:
    client: Any = store._client
    await client.set("notifications:u1", "not ours")
    event = an_event(NOW, recipient_count=2)
    mine, others = await routed(store.flights, event, "u1", "u2")
    assert await store.lists.entries("u1") == []
    await Persister(store, "one").drain()
    assert await store.facts.length() == 0
    assert await read_times(store, "u1", [mine.id])
    assert await read_times(store, "u2", [others.id])
    assert await client.get("notifications:u1") == "not ours"


async def test_the_ends_of_a_journal_are_told_without_its_entries(store: Store) -> None:
    assert await store.facts.oldest_ms() is None
    before_ms = time.time_ns() // 1_000_000
    await routed(store.flights, an_event(NOW), "u1")
    oldest_ms = await store.facts.oldest_ms()
    assert oldest_ms is not None
    assert before_ms - 1_000 < oldest_ms <= time.time_ns() // 1_000_000 + 1_000


async def test_what_could_not_be_stored_is_listed_and_tried_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(entries: Sequence[Entry], **_: Any) -> None:
        raise writer.Refused("a reason")

    (made,) = await routed(store.flights, an_event(NOW), "u1")
    with monkeypatch.context() as patch:
        patch.setattr(writer, "store", refusing)
        await Persister(store, "one").drain()
    kept = await store.postgres.call(bad_facts_kept.listed, 100)
    assert {each.why for each in kept} == {"a reason"}
    assert any("routed" in each.kinds for each in kept)
    by = By("tests", "cid-1")
    assert await store.retry_bad_facts((kept[0].id,), by) == (1, len(kept) - 1)
    assert await store.retry_bad_facts(None, by) == (len(kept) - 1, 0)
    await Persister(store, "one").drain()
    assert await read_times(store, "u1", [made.id])
    assert await bad_facts(store) == []
    assert await store.retry_bad_facts(None, by) == (0, 0)
