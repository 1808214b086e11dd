"""How Redis is reached: what a burst of calls does, and what its errors mean."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis import exceptions

from tests.workbench import eventually
from tocsin.domain.errors import Overloaded, RedisAway
from tocsin.storage import hanging
from tocsin.storage import redis as reaching
from tocsin.storage.embedded_redis import EmbeddedRedis
from tocsin.storage.redis import connect, told

Hangs = tuple[Any, Callable[[], None]]


@pytest.mark.servers
async def test_a_burst_of_calls_waits_its_turn(redis_url: str) -> None:
    client = connect(redis_url)
    answers = await asyncio.gather(*(client.get("x") for _ in range(500)))
    await client.aclose()
    assert answers == [None] * 500


@pytest.mark.servers
async def test_who_waits_for_a_connection_gets_one_though_others_take_the_short_way(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaching, "_MOST_CONNECTIONS", 2)
    client = connect(redis_url)

    async def calls() -> None:
        for _ in range(50):
            await client.get("x")

    async with asyncio.timeout(2):  # less than anybody waits who is forgotten
        await asyncio.gather(*(calls() for _ in range(8)))
    assert client.connection_pool._waiting == 0
    assert not client.connection_pool._in_use_connections
    await client.aclose()


@pytest.mark.servers
@pytest.mark.parametrize("how", ["closed by Redis", "an answer left unread"])
async def test_a_kept_connection_that_is_not_good_is_given_to_nobody(redis_url: str, how: str) -> None:
    client = connect(redis_url)
    await client.set("x", "1")
    (kept,) = client.connection_pool._available_connections
    if how == "closed by Redis":
        own = await client.client_id()
        other = connect(redis_url)
        await other.client_kill_filter(_id=own)
        await other.aclose()
    else:
        await kept.send_command("GET", "nothing")
        await eventually(kept.can_read)
    assert [await client.get("x") for _ in range(3)] == ["1"] * 3
    await client.aclose()


@pytest.mark.servers
async def test_a_long_command_waits_for_room_and_a_short_one_for_its_answer_alone(redis_url: str) -> None:
    client = connect(redis_url)
    for length in (1, hanging._SHORT, 5_000_000):
        await client.set("x", "y" * length)
        assert len(await client.get("x")) == length
    await client.aclose()


@pytest.fixture
async def hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hangs]:
    """A client of a Redis that does not answer any more, which is soon noticed; and what lets it go on."""
    monkeypatch.setattr(reaching, "_TIMEOUT_S", 0.6)
    monkeypatch.setattr(hanging, "_SILENT_S", 0.3)
    server = EmbeddedRedis(tmp_path)
    client = connect(server.start())
    await client.get("x")
    assert server.pid is not None
    go_on = partial(os.kill, server.pid, signal.SIGCONT)
    os.kill(server.pid, signal.SIGSTOP)
    yield client, go_on
    go_on()
    await client.aclose()
    server.stop()


@pytest.mark.servers
async def test_while_redis_hangs_only_the_first_calls_wait(hangs: Hangs) -> None:
    client, go_on = hangs
    while not client.connection_pool.hanging.lasts:
        await asyncio.gather(*(client.get("x") for _ in range(3)), return_exceptions=True)
    end_s = time.monotonic() + 2.5  # some looks, each in vain
    while time.monotonic() < end_s:
        with pytest.raises(exceptions.TimeoutError, match="Redis hangs"):
            await client.get("x")
        await asyncio.sleep(0.01)
    go_on()
    async with asyncio.timeout(10):
        while client.connection_pool.hanging.lasts:
            with suppress(exceptions.TimeoutError):
                await client.get("x")
            await asyncio.sleep(0.01)
    assert await client.get("x") is None


@pytest.mark.servers
async def test_that_redis_hangs_is_seen_though_it_still_takes_connections(hangs: Hangs) -> None:
    client, _ = hangs

    async def call(after_s: float) -> None:
        await asyncio.sleep(after_s)
        while not client.connection_pool.hanging.lasts:
            with suppress(exceptions.RedisError):
                await client.get("x")

    # One after the other, so that somebody has always just connected.
    async with asyncio.timeout(3):
        await asyncio.gather(*(call(0.1 * number) for number in range(8)))


async def test_a_connection_to_another_machine_is_kept_alive() -> None:
    client = connect("redis://127.0.0.1:1")
    assert client.connection_pool.connection_kwargs["socket_keepalive"]
    await client.aclose()


@pytest.mark.parametrize(
    ("error", "meant"),
    [
        (exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), Overloaded),
        (
            exceptions.ResponseError(
                "Error running script (call to f_1): @user_script:9: -OOM command not allowed when used memory >"
            ),
            Overloaded,
        ),
        (exceptions.ResponseError("MISCONF Redis is configured to save RDB snapshots, but it's unable to"), Overloaded),
        (exceptions.ReadOnlyError("You can't write against a read only replica."), RedisAway),
        (exceptions.ResponseError("BUSY Redis is busy running a script."), RedisAway),
        (exceptions.ConnectionError("Error 111 connecting to 10.0.0.1:6379."), RedisAway),
        (exceptions.ResponseError("WRONGTYPE Operation against a key"), exceptions.ResponseError),
    ],
)
def test_an_error_of_redis_is_told_as_what_it_means(error: Exception, meant: type[Exception]) -> None:
    with pytest.raises(meant) as raised, told():
        raise error
    assert "10.0.0.1" not in str(raised.value)


async def test_a_connection_that_uvloop_finds_closed_is_a_lost_one() -> None:
    raised: list[Exception] = [
        RuntimeError("unable to perform operation on <UnixTransport closed=True>; the handler is closed"),
        RuntimeError("a defect of ours"),
    ]
    failed: list[Exception] = []

    async def call() -> None:
        raise raised.pop(0)

    async def fail(error: Exception) -> None:
        failed.append(error)

    with pytest.raises(RuntimeError, match="a defect of ours"):
        await hanging.Tries(hanging.Hanging()).call_with_retry(call, fail)
    assert [type(error) for error in failed] == [exceptions.ConnectionError]
