"""The doctor looks at Redis: does it answer, and does it keep what it is told."""

from __future__ import annotations

from collections.abc import Iterator

from tocsin.cli.findings import Finding, fail, ok, warn
from tocsin.domain.errors import RedisAway
from tocsin.storage.redis_check import RedisState, inspect_redis

_MB = 1_000_000


async def check_redis(url: str) -> list[Finding]:
    """The findings about the Redis at `url`."""
    try:
        state = await inspect_redis(url)
    except RedisAway as away:
        return [fail("redis", str(away), "Start it, or mend redis.url (REDIS_URL).")]
    return list(judge_redis(state))


def judge_redis(state: RedisState) -> Iterator[Finding]:
    """What is right and wrong with a Redis in this state."""
    yield ok("redis", f"Redis {state.version} answers, {state.used_memory // _MB} MB used")
    if not state.writable:
        yield fail("redis", "it is a replica and takes no writes", "Point redis.url at the primary.")
    if not state.aof:
        yield warn(
            "redis",
            "it keeps no append-only file: what only Redis has is lost when it restarts",
            "Set `appendonly yes` in redis.conf, or `CONFIG SET appendonly yes`.",
        )
    elif state.fsync == "no":
        yield warn("redis", "it leaves writing to the disk to the system", "Set `appendfsync everysec`.")
    else:
        yield ok("redis", f"append-only file on, written {state.fsync or 'as its host set it'}")
    if state.eviction == "noeviction":
        yield ok("redis", "no eviction")
    else:
        yield fail(
            "redis",
            f"eviction is {state.eviction}: at its memory limit Redis would throw away what is in motion",
            "Set `maxmemory-policy noeviction`.",
        )
    if state.max_memory == 0:
        yield warn(
            "redis",
            "no memory limit: Tocsin cannot stop taking events in before the machine's memory is used up",
            "Set `maxmemory`, or redis.max_memory in the settings.",
        )
