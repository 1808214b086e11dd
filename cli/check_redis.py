"""Looks at Redis, for the doctor and for each start: can it run our scripts, and does it keep what it is told."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from tocsin.actors import queues
from tocsin.cli.findings import Finding, clock, fail, ok, stop, warn
from tocsin.domain.errors import RedisAway
from tocsin.domain.setting_sections import RedisSettings
from tocsin.domain.settings import Settings
from tocsin.storage.embedded_redis import OLDEST
from tocsin.storage.keys import Keys
from tocsin.storage.redis_check import RedisState, inspect_redis

_MB = 1_000_000


async def check_redis(settings: Settings, url: str, installation: str | None) -> list[Finding]:
    """The findings about the Redis at `url`. `installation` is Postgres's, where that is known."""
    keys = Keys.of(settings.redis)
    try:
        state = await inspect_redis(url, keys)
    except RedisAway as away:
        return [fail("redis", str(away), "Start it, or mend redis.url (REDIS_URL).")]
    return [
        *judge_redis(state, max_memory=settings.redis.max_memory),
        judge_journal(state.journal_bytes, settings.redis),
        *judge_installation(state.installation, installation, keys),
        *judge_actors(state.attended),
    ]


def judge_redis(state: RedisState, *, max_memory: int | None = None) -> Iterator[Finding]:
    """What is right and wrong with a Redis in this state; `max_memory` is what the settings allow it."""
    yield ok("redis", f"Redis {state.version} answers, {state.used_memory // _MB} MB used")
    yield from _judge_kind(state)
    yield clock("redis", "Redis", state.clock_off_ms)
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
    if state.max_memory == 0 and max_memory is None:
        yield warn(
            "redis",
            "no memory limit: Tocsin cannot stop taking events in before the machine's memory is used up",
            "Set `maxmemory`, or redis.max_memory in the settings.",
        )


def judge_journal(held: int, marks: RedisSettings) -> Finding:
    """Whether Postgres keeps up with what happens."""
    told = f"the journal holds {held // _MB} MB that Postgres has not heard of"
    if held < marks.plan_journal:
        return ok("redis", told)
    what = "nothing new is accepted" if held >= marks.max_journal else "recipients are not planned"
    return warn(
        "redis",
        f"{told}: {what} until it has",
        "See whether Postgres answers and keeps up, and whether some process works on persist.",
    )


def judge_installation(in_redis: str | None, in_postgres: str | None, keys: Keys) -> Iterator[Finding]:
    """Whether what Redis holds belongs to what Postgres holds."""
    if in_redis is not None and in_postgres is not None and in_redis != in_postgres:
        yield stop(
            "redis",
            f"the keys under {keys.namespace!r} belong to another Tocsin, with another Postgres",
            "Give each a redis.namespace and a redis.inbox_prefix of its own. Where this Postgres has taken the other's"
            f" place: `redis-cli del {keys.installation}`.",
        )


def judge_actors(attended: AbstractSet[str]) -> Iterator[Finding]:
    """Whether some process works on every queue."""
    unattended = [queue for queue in queues.ALL if queue not in attended]
    if not unattended:
        yield ok("actors", "some process works on every queue")
    elif not attended:
        yield warn("actors", "no process runs actors now", "Start `tocsin serve`, or `tocsin actors`.")
    else:
        names = ",".join(unattended)
        yield warn("actors", f"no process works on {names}: it waits", f"Start `tocsin actors --queues {names}`.")


def _judge_kind(state: RedisState) -> Iterator[Finding]:
    """Whether it is one that our scripts can run on."""
    if state.release == (0, 0):
        yield warn("redis", "it does not tell its version (INFO), as a proxy would not", "Name the Redis behind it.")
    elif state.release < OLDEST:
        yield stop("redis", f"version {state.version} is too old", "Give one from 6.2 on, or Valkey.")
    if state.cluster:
        yield stop(
            "redis",
            "it is a cluster: our scripts change several keys in one step, and a cluster spreads them",
            "Point redis.url at a Redis without cluster mode (`cluster-enabled no`), with a replica if need be.",
        )
    elif not state.runs_scripts:
        yield stop(
            "redis",
            "it does not run Lua scripts over several keys, as a proxy in front of several may not",
            "Point redis.url at the Redis itself, and let its user run EVALSHA.",
        )
