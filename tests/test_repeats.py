"""Requests that come again with their Idempotency-Key while things go wrong: done once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakeredis
import pytest
from loguru import logger

from tests.scenes import an_event, people
from tocsin.domain.errors import PostgresAway, RedisAway, StillRunning
from tocsin.domain.settings import load
from tocsin.storage import intake, queries
from tocsin.storage import repeats as repeats_of
from tocsin.storage.accepted import Idempotency
from tocsin.storage.embedded_redis import EmbeddedRedis
from tocsin.storage.keys import Keys
from tocsin.storage.postgres import Postgres
from tocsin.storage.redis import connect
from tocsin.storage.repeats import Repeats
from tocsin.storage.store import Store

KEY = Idempotency("sender", "k1", "hash", {"id": "1"})


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
async def store(server: fakeredis.FakeServer) -> AsyncIterator[Store]:
    """A store on a fakeredis that is taken for durable, without Postgres."""
    async with without_postgres(fakeredis.FakeAsyncRedis(server=server, decode_responses=True)) as made:
        yield made


@asynccontextmanager
async def without_postgres(client: Any) -> AsyncIterator[Store]:
    """A store on a Redis that is taken for durable."""
    settings = load({}).with_values(
        {"postgres.url": "postgresql://nobody@127.0.0.1:1/nothing", "redis.url": "redis://127.0.0.1:1"}
    )
    postgres = Postgres(settings.postgres)
    made = Store(settings, postgres, client)
    made._intake.redis_is_durable = True
    yield made
    await made.close()
    await postgres.close()


async def test_a_request_whose_outcome_nobody_knows_is_not_done_again_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = store.flights.accept

    async def unheard(*given: Any) -> bool:
        await accept(*given)
        raise RedisAway("the answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(store.flights, "accept", unheard)
        with pytest.raises(RedisAway):
            await store.accept(an_event(), people("u1"), KEY)
    with pytest.raises(StillRunning):
        await store.accept(an_event(), people("u1"), KEY)
    assert store.repeats._taken == {}, "of such requests there may be any number"


async def test_a_request_that_did_nothing_may_come_again_at_once(store: Store) -> None:
    async def learnt_nothing() -> None: ...

    store._intake.redis_is_durable = False
    store._intake._learn = learnt_nothing
    with pytest.raises(PostgresAway):
        await store.accept(an_event(), people("u1"), KEY)
    store._intake.redis_is_durable = True
    assert (await store.accept(an_event(), people("u1"), KEY)).replay is None
    again = await store.accept(an_event(), people("u1"), KEY)
    assert again.replay == {"id": "1", "durability": "redis"}


async def test_an_event_that_is_refused_replaces_none(store: Store) -> None:
    async def learnt_nothing() -> None: ...

    first = an_event(event_key="k", signature="a")
    await store.accept(first, people("u1"), None)
    store._intake.redis_is_durable, store._intake._learn = False, learnt_nothing
    with pytest.raises(PostgresAway):
        await store.accept(an_event(event_key="k", signature="b"), people("u1"), None)
    assert not await store._client.exists(f"{store._keys.namespace}:cancelled:{first.id}")


async def test_a_key_that_was_taken_twice_because_the_answer_was_lost_is_this_requests(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    client: Any = store._client
    take = client.set

    async def sent_again(*given: Any, **rules: Any) -> Any:
        await take(*given, **rules)
        return await take(*given, **rules)

    with monkeypatch.context() as patch:
        patch.setattr(client, "set", sent_again)
        assert await store.repeats.begin(KEY) is None
    with pytest.raises(StillRunning):
        await store.repeats.begin(KEY)


async def rests_in_redis_alone(store: Store, server: fakeredis.FakeServer, postgres_url: str) -> None:
    """An event under KEY was taken while Postgres was away; now Postgres is back, and Redis away."""
    store.life.adopt("a life", 0)
    taken = await store.accept(an_event(accepted_ms=1), people("u1"), KEY)
    assert taken.durability == "redis"
    server.connected = False
    store.postgres = Postgres(store.settings.with_values({"postgres.url": postgres_url}).postgres)
    store._intake._postgres = store.keeper._postgres = store.postgres


@pytest.mark.servers
async def test_a_key_that_only_redis_knew_holds_when_postgres_is_back_and_redis_gone(
    store: Store, server: fakeredis.FakeServer, postgres_url: str
) -> None:
    await rests_in_redis_alone(store, server, postgres_url)
    assert (await store.accept(an_event(), people("u1"), KEY)).replay == {"id": "1"}
    assert store.life.resting() == []
    await store.postgres.close()


@pytest.mark.servers
async def test_a_key_that_only_redis_knew_is_soon_in_postgres_for_other_processes_too(
    store: Store, server: fakeredis.FakeServer, postgres_url: str
) -> None:
    await rests_in_redis_alone(store, server, postgres_url)
    keeping = asyncio.create_task(store.keeper.run())
    async with asyncio.timeout(5):
        while store.life.resting():  # noqa: ASYNC110  # the other end is in Postgres
            await asyncio.sleep(0.01)
    keeping.cancel()
    assert len(await store.postgres.call(queries.recent_events, 10)) == 1
    await store.postgres.close()


@pytest.mark.servers
async def test_a_redis_that_just_started_does_not_say_that_a_key_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who took the first request while it was away may be about to tell it, and Postgres is away by now."""
    server = EmbeddedRedis(tmp_path)
    client = connect(server.start())
    try:
        async with without_postgres(client) as store:
            with pytest.raises(PostgresAway, match="too lately"):
                await store.accept(an_event(), people("u1"), KEY)
            assert (await store.accept(an_event(), people("u1"), None)).durability == "redis"
            monkeypatch.setattr(intake, "_SETTLED_S", 0)
            assert (await store.accept(an_event(), people("u1"), KEY)).replay is None
    finally:
        server.stop()


async def test_a_redis_that_only_just_answers_again_does_not_say_that_a_key_is_new(
    server: fakeredis.FakeServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have started long ago, and have loaded since what it had."""
    await store.keeper.look()
    assert (await store.accept(an_event(), people("u1"), replace(KEY, key="k0"))).replay is None
    server.connected = False
    with pytest.raises(RedisAway):
        await store.keeper.look()
    server.connected = True
    await store.keeper.look()
    with pytest.raises(PostgresAway, match="too lately"):
        await store.accept(an_event(), people("u1"), KEY)
    monkeypatch.setattr(intake, "_SETTLED_S", 0)
    assert (await store.accept(an_event(), people("u1"), KEY)).replay is None


async def test_an_answer_that_redis_was_away_for_is_known_to_it_when_it_is_back() -> None:
    """By then Postgres, which has the key too, may be away."""
    server = fakeredis.FakeServer()
    keys, client = Keys("t", "notifications"), fakeredis.FakeAsyncRedis(server=server, decode_responses=True)
    repeats = Repeats(client, keys)
    server.connected = False
    await repeats.finish(KEY, {"id": "1"})
    server.connected = True
    async with asyncio.timeout(5):
        while not await client.exists(keys.idempotency(KEY.scope, KEY.key)):  # noqa: ASYNC110  # it is in the server
            await asyncio.sleep(0.01)
    assert await repeats.begin(KEY) == {"id": "1"}
    await repeats.close()
    await client.aclose()


async def test_an_answer_that_can_never_be_kept_is_said_once_and_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(repeats_of, "_AGAIN_S", 0.001)
    server = fakeredis.FakeServer()
    keys, client = Keys("t", "notifications"), fakeredis.FakeAsyncRedis(server=server, decode_responses=True)
    repeats, other, keep, tries, said = Repeats(client, keys), replace(KEY, key="k2"), client.set, [0], list[str]()

    async def broken(place: str, *given: Any, **rules: Any) -> Any:
        if place == keys.idempotency(KEY.scope, KEY.key):
            tries[0] += 1
            raise RuntimeError("a defect")
        return await keep(place, *given, **rules)

    handler = logger.add(said.append, format="{message}", filter="tocsin.storage.repeats")
    server.connected = False
    await repeats.finish(KEY, {"id": "1"})
    await repeats.finish(other, {"id": "2"})
    monkeypatch.setattr(client, "set", broken)
    server.connected = True
    async with asyncio.timeout(5):
        while tries[0] < 20:  # noqa: ASYNC110  # nobody tells of a try
            await asyncio.sleep(0.001)
    logger.remove(handler)
    assert len(said) == 1
    assert await repeats.begin(other) == {"id": "2"}
    await repeats.close()
    await client.aclose()


async def test_a_request_that_failed_frees_no_key_whose_answer_came_late() -> None:
    """Redis was away when the first was answered; the repetition found no key, took it, and found Postgres away."""
    server = fakeredis.FakeServer()
    keys, client = Keys("t", "notifications"), fakeredis.FakeAsyncRedis(server=server, decode_responses=True)
    first, second = Repeats(client, keys), Repeats(client, keys)
    assert await second.begin(KEY) is None
    await first.finish(KEY, {"id": "1"})
    await second.abandon(KEY)
    assert await second.begin(KEY) == {"id": "1"}
    await client.aclose()


async def test_a_request_that_never_took_its_key_frees_nobody_elses() -> None:
    server = fakeredis.FakeServer()
    keys, client = Keys("t", "notifications"), fakeredis.FakeAsyncRedis(server=server, decode_responses=True)
    first, second = Repeats(client, keys), Repeats(client, keys)
    assert await first.begin(KEY) is None
    await second.abandon(KEY)
    with pytest.raises(StillRunning):
        await second.begin(KEY)
    await first.abandon(KEY)
    assert await second.begin(KEY) is None
    await client.aclose()
