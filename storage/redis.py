"""The connection to Redis: time-outs and retries set on purpose, and its errors told in our own words."""

import math
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
import redis.asyncio
from redis import exceptions
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from tocsin.domain.errors import Overloaded, RedisAway, RedisLost
from tocsin.storage.hanging import Hanging, Tries, WatchedPool

Redis = redis.asyncio.Redis

# A short socket time-out and two quick tries: a request would rather hear that Redis is away than wait a minute for it,
# and every script may be sent again (docs/adr/0002).
_TIMEOUT_S = 3.0
_CONNECT_TIMEOUT_S = 2.0

_MOST_CONNECTIONS = 200
# Who only listens notices that the other machine is gone by this alone, after about a minute.
_KEEPALIVE_S = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}

_AWAY = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.BusyLoadingError,
    exceptions.ReadOnlyError,
    exceptions.AuthenticationError,
)

# As lua/lib.lua words it.
_LOST = "LOST "
# Up to Redis 6.2 an error inside a script is plain text: "Error running script (…): … -OOM command not allowed …".
_FULL = re.compile(r"(^|-)(OOM|MISCONF|NOREPLICAS) ")
_NOT_SERVING = re.compile(r"(^|-)(READONLY|LOADING|MASTERDOWN|CLUSTERDOWN|BUSY) ")


def connect(url: str) -> Any:
    """A client for one event loop; text in and out."""
    # More calls at once than connections wait for one another: an error would say that Redis is away.
    hanging = Hanging()
    pool = WatchedPool.from_url(
        url,
        decode_responses=True,
        socket_timeout=_TIMEOUT_S,
        socket_connect_timeout=_CONNECT_TIMEOUT_S,
        retry=Tries(hanging),
        health_check_interval=30,
        max_connections=_MOST_CONNECTIONS,
        timeout=_TIMEOUT_S,
        **_kept_alive(url),
    )
    pool.hanging = hanging
    return redis.asyncio.Redis.from_pool(pool)


def connect_broker(url: str) -> Any:
    """The blocking client that Dramatiq's consumers use, each in a thread of its own."""
    return redis.Redis.from_url(
        url,
        socket_timeout=_TIMEOUT_S,
        socket_connect_timeout=_CONNECT_TIMEOUT_S,
        retry=Retry(ExponentialBackoff(cap=0.2, base=0.02), 2, supported_errors=_AWAY[:2]),
        health_check_interval=30,
    )


async def info(client: Any, section: str) -> dict[str, Any]:
    """What Redis says of itself; nothing where it does not tell, as the one that forgets. Raises RedisAway."""
    with told():
        try:
            said: dict[str, Any] = await client.info(section)
        except exceptions.ResponseError:
            return {}
    return said


async def up_s(client: Any) -> float:
    """For how many seconds Redis has been running; without end where it does not tell. Raises RedisAway."""
    return float((await info(client, "server")).get("uptime_in_seconds", math.inf))


@contextmanager
def told() -> Iterator[None]:
    """Turns what redis-py raises into RedisAway or Overloaded, without the address of the server."""
    try:
        yield
    except exceptions.OutOfMemoryError as error:
        raise Overloaded("Redis is at its memory limit") from error
    except (*_AWAY, OSError) as error:
        raise RedisAway(f"Redis does not answer ({type(error).__name__})") from error
    except exceptions.ResponseError as error:
        if (meant := _meant(error)) is None:
            raise
        raise meant from error


def _kept_alive(url: str) -> dict[str, Any]:
    """Options for a connection that goes to another machine; not every system has all of them."""
    if url.startswith("unix:"):
        return {}
    options = {getattr(socket, name): value for name, value in _KEEPALIVE_S.items() if hasattr(socket, name)}
    return {"socket_keepalive": True, "socket_keepalive_options": options}


def _meant(error: exceptions.ResponseError) -> RedisAway | Overloaded | None:
    """What an error means that redis-py has no class for; None for one that is our own defect."""
    text = str(error)
    if text.startswith(_LOST):
        return RedisLost("Redis was emptied or is an older one; it is being rebuilt")
    if full := _FULL.search(text):
        return Overloaded(f"Redis takes nothing more ({full[2]})")
    if away := _NOT_SERVING.search(text):
        return RedisAway(f"Redis does not serve ({away[2]})")
    return None
