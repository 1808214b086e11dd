"""Marking read: by the short way to Postgres once where it is open, by the other wherever it is not, and open pages
hear of it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import psycopg2
import pytest
import redis.asyncio
from psycopg2.extensions import parse_dsn

from tests.served import ASHA, SETTINGS, Served, notification_of, serving
from tocsin.domain import ids
from tocsin.domain.settings import Settings
from tocsin.storage.direct import Direct
from tocsin.storage.inbox_queries import EXECUTE_READ, PREPARE_READ
from tocsin.storage.persist import store
from tocsin.storage.postgres import Postgres
from tocsin.tests.stalling import Stalling
from tocsin.tests.stored import AT_MS, EVENT, ask, entries, lent, routed, rows_of

pytestmark = pytest.mark.servers

NOTES = [ids.notification_id(EVENT, f"u{number}") for number in range(1, 5)]
Open = Callable[..., Awaitable[Direct]]


@pytest.fixture
async def opened(settings: Callable[..., Settings], postgres_url: str) -> AsyncIterator[Open]:
    """Opens the short way to the test's database, in which there are four notifications."""
    made: list[tuple[Direct, Postgres]] = []
    with lent(postgres_url):
        store(entries(routed("u1", "u2", "u3", "u4")))

    async def open_it(url: str = postgres_url) -> Direct:
        postgres = Postgres(settings({"postgres.url": url}).postgres)
        direct = Direct(postgres, PREPARE_READ, EXECUTE_READ)
        made.append((direct, postgres))
        assert not await read(direct, 4)
        await open_again(direct)
        return direct

    yield open_it
    for direct, postgres in made:
        await direct.close()
        await postgres.close()


async def open_again(direct: Direct) -> None:
    """Waits until whoever was asked has opened its way behind the caller's back."""
    async with asyncio.timeout(10):
        while not direct.is_open:
            await direct.run("nobody", AT_MS, [UUID(int=1)])
            await asyncio.sleep(0.01)


async def until_closed(direct: Direct) -> None:
    async with asyncio.timeout(10):
        while True:
            if not direct.is_open:
                return
            await asyncio.sleep(0.01)


async def read(direct: Direct, number: int) -> bool:
    return await direct.run(f"u{number}", AT_MS + number, [NOTES[number - 1]])


def who_read(url: str) -> list[str]:
    return [user for (user,) in rows_of(url, "select user_id from notifications where read_at is not null order by 1")]


async def test_it_opens_behind_who_asks_first_and_is_taken_from_then_on(opened: Open, postgres_url: str) -> None:
    direct = await opened()
    assert who_read(postgres_url) == []
    assert await read(direct, 1)
    assert await read(direct, 2)
    assert await read(direct, 2)
    assert who_read(postgres_url) == ["u1", "u2"]
    counted = "select sum(difference)::integer from count_changes where event_id = %s and status = 'READ'"
    assert rows_of(postgres_url, counted, EVENT) == [(2,)]


async def test_some_at_once_go_one_after_the_other_and_one_more_the_other_way(opened: Open, postgres_url: str) -> None:
    direct = await opened()
    wanted = [read(direct, number) for number in (1, 2, 3, 3, 4)]
    assert await asyncio.gather(*wanted) == [True, True, True, True, False]
    assert who_read(postgres_url) == ["u1", "u2", "u3"]
    assert await read(direct, 4)


async def test_a_row_that_another_holds_is_not_waited_for_long(opened: Open, postgres_url: str) -> None:
    direct = await opened()
    connection = psycopg2.connect(postgres_url)
    connection.cursor().execute("select from notifications where id = %s for update", (str(NOTES[0]),))
    began_s = time.monotonic()
    assert not await read(direct, 1)
    assert time.monotonic() - began_s < 2
    assert not direct.is_open
    connection.rollback()
    connection.close()
    await open_again(direct)
    assert await read(direct, 1)
    assert who_read(postgres_url) == ["u1"]


async def test_a_server_that_goes_away_is_noticed_and_comes_back(opened: Open, postgres_url: str) -> None:
    direct = await opened()
    assert await read(direct, 1)
    with lent(postgres_url):
        ask("select pg_terminate_backend(pid, 5000) from pg_stat_activity where query like 'execute read_now%%'")
    await until_closed(direct)
    assert not await read(direct, 2)
    await open_again(direct)
    assert await read(direct, 2)


async def test_a_server_that_hangs_holds_a_reader_up_for_a_moment(opened: Open, postgres_url: str) -> None:
    dsn = parse_dsn(postgres_url)
    with Stalling(f"{dsn['host']}/.s.PGSQL.5432") as way:
        direct = await opened(f"postgresql://tocsin@127.0.0.1:{way.port}/{dsn['dbname']}")
        assert await read(direct, 1)
        way.stall()
        began_s = time.monotonic()
        assert not await read(direct, 2)
        assert time.monotonic() - began_s < 2
        way.flow()
        await open_again(direct)
        assert await read(direct, 2)
    assert who_read(postgres_url) == ["u1", "u2"]


async def test_who_waits_behind_one_that_hangs_waits_no_longer(opened: Open, postgres_url: str) -> None:
    direct = await opened()
    connection = psycopg2.connect(postgres_url)
    connection.cursor().execute("select from notifications where id = %s for update", (str(NOTES[0]),))
    began_s = time.monotonic()
    assert await asyncio.gather(*(read(direct, number) for number in (1, 2, 3))) == [False, False, False]
    assert time.monotonic() - began_s < 2
    connection.rollback()
    connection.close()
    await open_again(direct)
    assert await asyncio.gather(*(read(direct, number) for number in (1, 2))) == [True, True]


@pytest.mark.parametrize("waits", [False, True])
async def test_a_caller_who_goes_away_leaves_no_answer_to_the_next(
    opened: Open, postgres_url: str, *, waits: bool
) -> None:
    direct = await opened()
    first = asyncio.create_task(read(direct, 3)) if waits else None
    reading = asyncio.create_task(read(direct, 1))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    if first is not None:
        assert await first
        assert await read(direct, 2)
        assert "u1" not in who_read(postgres_url)
        return
    assert not await read(direct, 2)
    await open_again(direct)
    assert await read(direct, 2)
    assert "u2" in who_read(postgres_url)


async def test_a_closed_one_opens_nothing_more(opened: Open) -> None:
    direct = await opened()
    await direct.close()
    assert [await read(direct, 1), await read(direct, 1)] == [False, False]
    assert not direct.is_open


async def test_a_read_is_in_postgres_when_it_is_answered_whichever_way_it_went(
    settings: Callable[..., Settings], redis_url: str, postgres_url: str
) -> None:
    async with serving(settings(SETTINGS), redis_url, postgres_url) as served:
        asha = served.user("asha")
        await asha.post("/api/notifications/read-all")
        notes = [await note_of(served) for _ in range(6)]
        # The first opens the short way; of two at once one goes the other, and so does who finds the row held.
        await marked(asha, notes[0])
        await asyncio.gather(*(marked(asha, note) for note in notes[1:3]))
        assert count_read(postgres_url) == 3
        connection = psycopg2.connect(postgres_url)
        connection.cursor().execute("select from notifications where id = %s for update", (str(notes[3]),))
        held = asyncio.create_task(marked(asha, notes[3]))
        await asyncio.sleep(0)
        await marked(asha, notes[4])
        assert not held.done()
        connection.rollback()
        connection.close()
        await held
        await marked(asha, notes[5])
        assert count_read(postgres_url) == 6


async def note_of(served: Served) -> UUID:
    return notification_of(await served.routed(recipients=[ASHA]), "asha")


async def marked(user: Any, note: UUID) -> None:
    assert (await user.post(f"/api/notifications/{note}/read")).is_success


def count_read(url: str) -> int:
    ((count,),) = rows_of(url, "select count(*) from notifications where read_at is not null")
    return int(count)


async def test_open_pages_hear_of_a_read_that_was_answered_as_its_process_ended(
    settings: Callable[..., Settings], redis_url: str, postgres_url: str
) -> None:
    async with redis.asyncio.Redis.from_url(redis_url) as client, client.pubsub() as listening:
        async with serving(settings(SETTINGS), redis_url, postgres_url) as served:
            note = await note_of(served)
            await listening.subscribe("tocsin:user:asha")
            await marked(served.user("asha"), note)
        async with asyncio.timeout(10):
            async for message in listening.listen():
                if message["data"] == b"read":
                    return
    pytest.fail("nobody was told")
