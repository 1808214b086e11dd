"""Calls to Postgres: a few connections, each good again or gone, and quick answers while it is away."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import psycopg2
import pytest
from loguru import logger
from psycopg2.extensions import parse_dsn

from tocsin.domain.errors import NotFound, PostgresAway
from tocsin.domain.settings import Settings
from tocsin.storage import users
from tocsin.storage.database import Refused, TooSlow, database
from tocsin.storage.postgres import Postgres
from tocsin.tests.stalling import Stalling
from tocsin.tests.stored import ask

pytestmark = pytest.mark.servers

Make = Callable[..., Postgres]


@pytest.fixture
async def make(postgres_url: str, settings: Callable[..., Settings]) -> AsyncIterator[Make]:
    """Makes a pool on the test's database, with settings of [postgres]."""
    made = []

    def postgres(**given: Any) -> Postgres:
        changes = {f"postgres.{name}": value for name, value in {"url": postgres_url, **given}.items()}
        made.append(Postgres(settings(changes).postgres))
        return made[-1]

    yield postgres
    for each in made:
        await each.close()


@pytest.fixture
def said() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="INFO")
    yield lines
    logger.remove(sink)


@pytest.fixture
def operator(postgres_url: str) -> Iterator[Callable[[str], Any]]:
    """Somebody else at the same server, in a database that is not the test's."""
    connection = psycopg2.connect(postgres_url.replace(_name(postgres_url), "postgres"))
    connection.autocommit = True

    def do(statement: str) -> Any:
        with connection.cursor() as query:
            query.execute(statement)
            return query.fetchall() if query.description else None

    yield do
    connection.close()


def _name(url: str) -> str:
    return url.partition("@/")[2].partition("?")[0]


def _sleep(seconds: float) -> Any:
    return ask("select pg_sleep(%s)", seconds)


async def test_a_connection_has_its_time_outs_set(make: Make) -> None:
    postgres = make(statement_timeout="7s")
    shown = [
        (await postgres.call(ask, f"show {name}"))[0][0]
        for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "application_name")
    ]
    assert shown == ["7s", "7s", "30s", "tocsin"]


async def test_no_more_connections_are_opened_than_the_pool_may_hold(make: Make) -> None:
    postgres = make(pool=2)
    await asyncio.gather(*(postgres.call(_sleep, 0.05) for _ in range(6)))
    ((count,),) = await postgres.call(
        ask, "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'tocsin'"
    )
    assert count == 2


async def test_a_connection_that_died_while_idle_is_not_noticed(
    make: Make, operator: Callable[[str], Any], postgres_url: str
) -> None:
    postgres = make()
    await asyncio.gather(*(postgres.call(_sleep, 0.05) for _ in range(4)))
    operator(f"select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = '{_name(postgres_url)}'")
    for _ in range(5):
        assert await postgres.call(ask, "select 1") == [(1,)]


async def test_our_own_errors_pass_and_the_connection_is_good_again(make: Make) -> None:
    postgres = make(pool=1)

    def fails_in_a_transaction() -> None:
        with database.atomic():
            ask("insert into users (id) values ('u1')")
            raise NotFound("gone")

    with pytest.raises(NotFound):
        await postgres.call(fails_in_a_transaction)
    assert await postgres.call(users.known, ["u1"]) == set()


async def test_a_transaction_left_open_goes_with_its_connection(make: Make) -> None:
    postgres = make(pool=1)
    ((first,),) = await postgres.call(ask, "begin; insert into users (id) values ('u1'); select pg_backend_pid()")
    ((second,),) = await postgres.call(ask, "select pg_backend_pid()")
    assert first != second
    assert await postgres.call(users.known, ["u1"]) == set()


async def test_a_slow_statement_ends_at_its_time_out_and_nobody_else_suffers(make: Make, said: list[str]) -> None:
    postgres = make(statement_timeout="100ms")
    with pytest.raises(TooSlow):
        await postgres.call(_sleep, 5)
    assert await postgres.call(ask, "select 1") == [(1,)]
    assert said == []


async def test_a_call_that_hangs_is_broken_off(make: Make) -> None:
    postgres = make()
    began_s = time.monotonic()
    with pytest.raises(PostgresAway):
        await postgres.call_within(200, _sleep, 20)
    assert time.monotonic() - began_s < 5


async def test_who_finds_every_connection_busy_is_told_so(make: Make) -> None:
    postgres = make(pool=1)
    began, freed = threading.Event(), threading.Event()

    def hold() -> None:
        began.set()
        freed.wait(20)

    busy = asyncio.create_task(postgres.call(hold))
    await asyncio.to_thread(began.wait, 10)
    try:
        with pytest.raises(TooSlow):
            await postgres.call_within(50, ask, "select 1")
    finally:
        freed.set()
        await busy


async def test_away_is_answered_at_once_and_said_once(
    make: Make, said: list[str], operator: Callable[[str], Any], postgres_url: str
) -> None:
    postgres = make()
    name = _name(postgres_url)
    await postgres.ping()
    operator(f"alter database {name} allow_connections false")
    operator(f"select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = '{name}'")
    for _ in range(3):
        with pytest.raises(PostgresAway):
            await postgres.call(ask, "select 1")
    began_s = time.monotonic()
    for _ in range(200):
        with pytest.raises(PostgresAway):
            await postgres.call(ask, "select 1")
    assert time.monotonic() - began_s < 0.4
    assert len(said) == 1
    operator(f"alter database {name} allow_connections true")
    await _until_it_serves(postgres)
    assert said[1:] == ["Postgres serves again"]


async def _until_it_serves(postgres: Postgres) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                return await postgres.ping()
            except PostgresAway:
                await asyncio.sleep(0.02)


async def test_a_server_that_hangs_is_away_for_everybody_within_seconds(make: Make, postgres_url: str) -> None:
    folder = parse_dsn(postgres_url)["host"]
    with Stalling(f"{folder}/.s.PGSQL.5432") as way:
        url = f"postgresql://tocsin@127.0.0.1:{way.port}/{_name(postgres_url)}"
        postgres = make(url=url, pool=2, connect_timeout="2s")
        await asyncio.gather(*(postgres.call(_sleep, 0.05) for _ in range(2)))
        way.stall()
        began_s = time.monotonic()
        hanging = [postgres.call(users.known, ["u1"]) for _ in range(4)]
        answers = await asyncio.gather(*hanging, return_exceptions=True)
        assert [isinstance(answer, PostgresAway) for answer in answers] == [True] * 4
        assert time.monotonic() - began_s < 8
        way.flow()
        await _until_it_serves(postgres)
        assert await postgres.call(users.known, ["u1"]) == set()


async def test_a_long_call_to_a_server_that_serves_is_waited_for(make: Make) -> None:
    await make(connect_timeout="50ms").call(_sleep, 0.4)


async def test_a_caller_who_goes_away_leaves_the_rest_in_order(make: Make) -> None:
    postgres = make(pool=1)
    calls = [asyncio.create_task(postgres.call(_sleep, 0.1)) for _ in range(3)]
    await asyncio.sleep(0.02)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert all(call.cancelled() for call in calls)
    assert await postgres.call(ask, "select 1") == [(1,)]


async def test_a_server_that_is_not_there_is_away(make: Make) -> None:
    with pytest.raises(PostgresAway) as error:
        await make(url="postgresql://tocsin:s3cret@127.0.0.1:1/tocsin").ping()
    assert "s3cret" not in str(error.value)


async def test_a_connection_that_breaks_without_a_code_is_lost_and_a_wrong_call_is_not(make: Make) -> None:
    def as_its_server_is_killed() -> None:
        raise psycopg2.DatabaseError("server closed the connection unexpectedly")

    with pytest.raises(PostgresAway, match="lost"):
        await make().call(as_its_server_is_killed)
    with pytest.raises(psycopg2.ProgrammingError, match="empty query"):
        await make().call(ask, "")


async def test_a_missing_schema_is_away(make: Make, postgres_url: str) -> None:
    with pytest.raises(PostgresAway, match="42P01"):
        await make(url=postgres_url.replace(_name(postgres_url), "postgres")).call(users.known, ["u1"])


async def test_a_read_only_server_is_away(make: Make, operator: Callable[[str], Any], postgres_url: str) -> None:
    operator(f"alter database {_name(postgres_url)} set default_transaction_read_only = on")
    with pytest.raises(PostgresAway, match="25006"):
        await make().call(users.put_user, "u1")


async def test_data_that_postgres_will_not_have_is_refused_by_its_place_not_its_value(make: Make) -> None:
    with pytest.raises(Refused, match="23502") as error:
        await make().call(ask, "insert into notifications (id) values ('01a1ee56-5e7b-828b-88fe-a915b6985824')")
    assert "user_id" in str(error.value)
    assert "01a1" not in str(error.value)


async def test_a_defect_of_ours_is_shown_as_one(make: Make) -> None:
    with pytest.raises(psycopg2.errors.SyntaxError):
        await make().call(ask, "selec 1")


async def test_what_runs_is_finished_before_closing(make: Make) -> None:
    postgres = make()
    slow = asyncio.create_task(postgres.call(_sleep, 0.1))
    await asyncio.sleep(0.02)
    await postgres.close()
    await slow
    with pytest.raises(PostgresAway):
        await postgres.ping()
