"""What `tocsin doctor` asks a Redis: whether it keeps what it is told."""

from __future__ import annotations

from dataclasses import dataclass

from redis.exceptions import ResponseError

from tocsin.storage.redis import connect, told


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


async def inspect_redis(url: str) -> RedisState:
    """Asks the Redis at `url` about itself. Raises RedisAway."""
    client = connect(url)
    try:
        with told():
            found = await client.info()
            return RedisState(
                version=str(found["redis_version"]),
                aof=bool(found.get("aof_enabled")),
                fsync=await _setting(client, "appendfsync"),
                eviction=str(found.get("maxmemory_policy", "noeviction")),
                max_memory=int(found.get("maxmemory", 0)),
                used_memory=int(found["used_memory"]),
                writable=found.get("role", "master") == "master",
            )
    finally:
        await client.aclose()


async def _setting(client: object, name: str) -> str | None:
    """One setting of the server; None where CONFIG is kept from clients, as hosted ones do."""
    try:
        found: dict[str, str] = await client.config_get(name)  # type: ignore[attr-defined]
    except ResponseError:
        return None
    return found.get(name)
