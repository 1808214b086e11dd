"""What `tocsin doctor` and every start ask a Redis: whether it keeps what it is told, and can run our scripts."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from tocsin.domain.errors import RedisAway, Unavailable
from tocsin.storage.depths import worked_on
from tocsin.storage.keys import Keys
from tocsin.storage.redis import connect, told

# As our scripts do it: the clock, and keys of several kinds that only the script knows the names of.
_PROBE = """
redis.call('TIME')
return redis.call('EXISTS', ARGV[1] .. ':due') + redis.call('EXISTS', ARGV[2] .. ':nobody')
"""


@dataclass(frozen=True, slots=True)
class RedisState:
    """What a Redis says of itself. `max_memory` and `used_memory` in bytes; `max_memory` 0 for no limit."""

    version: str
    aof: bool
    fsync: str | None
    """appendfsync; None where the server does not tell."""
    eviction: str
    max_memory: int
    used_memory: int
    writable: bool
    cluster: bool = False
    runs_scripts: bool = True
    clock_off_ms: int = 0
    """How far Redis's clock is ahead of this machine's."""
    journal_bytes: int = 0
    """What the journal holds that Postgres has not heard of."""
    installation: str | None = None
    """Whose keys these are: what `installation` in Postgres was when they were begun."""
    attended: frozenset[str] = frozenset()
    """The queues that some process works on now."""

    @property
    def release(self) -> tuple[int, int]:
        """The first two numbers of the version."""
        major, minor, *_ = (*self.version.split("."), "0")
        return int(major), int(minor)


async def inspect_redis(url: str, keys: Keys) -> RedisState:
    """Asks the Redis at `url` about itself. Raises RedisAway."""
    client = connect(url)
    try:
        with told():
            found = await _info(client)
            cluster = bool(found.get("cluster_enabled"))
            return RedisState(
                version=str(found.get("redis_version", "0.0")),
                aof=bool(found.get("aof_enabled")),
                fsync=await _setting(client, "appendfsync"),
                eviction=str(found.get("maxmemory_policy", "noeviction")),
                max_memory=int(found.get("maxmemory", 0)),
                used_memory=int(found.get("used_memory", 0)),
                writable=found.get("role", "master") == "master",
                cluster=cluster,
                runs_scripts=not cluster and await _runs_scripts(client, keys),
                clock_off_ms=await _clock_off_ms(client),
                journal_bytes=0 if cluster else int(await client.get(keys.facts_bytes) or 0),
                installation=None if cluster else await client.get(keys.installation),
                attended=frozenset() if cluster else frozenset(await worked_on(client, keys)),
            )
    finally:
        await client.aclose()


async def _info(client: Any) -> dict[str, Any]:
    """What INFO answers; nothing where it is not answered, as proxies do not."""
    try:
        found: dict[str, Any] = await client.info()
    except ResponseError:
        return {}
    return found


async def _runs_scripts(client: Any, keys: Keys) -> bool:
    try:
        with told():
            await client.eval(_PROBE, 1, keys.facts, keys.namespace, keys.inbox_prefix)
    except ResponseError:
        return False
    except RedisAway:
        raise
    except Unavailable:
        # At its memory limit it would run them again later.
        return True
    return True


async def _clock_off_ms(client: Any) -> int:
    asked_ns = time.time_ns()
    seconds, microseconds = await client.time()
    here_ns = (asked_ns + time.time_ns()) // 2
    return int((seconds * 1_000_000 + microseconds) // 1000 - here_ns // 1_000_000)


async def _setting(client: Any, name: str) -> str | None:
    """One setting of the server; None where CONFIG is kept from clients, as hosted ones do."""
    try:
        found: dict[str, str] = await client.config_get(name)
    except ResponseError:
        return None
    return found.get(name)
