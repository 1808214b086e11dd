"""How Redis is reached: what a burst of calls does, and what its errors mean."""

import asyncio

import pytest
from redis import exceptions

from tocsin.domain.errors import Overloaded, RedisAway
from tocsin.storage.redis import connect, told


@pytest.mark.servers
async def test_a_burst_of_calls_waits_its_turn(redis_url: str) -> None:
    client = connect(redis_url)
    answers = await asyncio.gather(*(client.get("x") for _ in range(500)))
    await client.aclose()
    assert answers == [None] * 500


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
