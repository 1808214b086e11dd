"""How much waits in Redis and for how long; and which processes run actors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tocsin.domain.delivery import Channel
from tocsin.storage.keys import Keys
from tocsin.storage.redis import info, told

ALIVE_S = 15
_COUNTS_KEPT_MS = 300_000
_CHANNELS = tuple(channel for channel in Channel if channel is not Channel.IN_APP)


@dataclass(frozen=True, slots=True)
class Depths:
    """Numbers of entries, and ages in seconds (0 when nothing waits)."""

    facts: int
    facts_oldest_s: float
    facts_bytes: int
    due: int
    open: Mapping[Channel, int]
    oldest_ready_s: Mapping[Channel, float]
    memory_bytes: int
    actor_processes: int
    dead_letters: int | None
    """As last counted; None where that is long ago. So `held`, the deliveries whose outcome somebody has to settle."""
    held: int | None


async def measure(client: Any, keys: Keys) -> Depths:
    """Asks Redis once. Raises RedisAway."""
    with told():
        seconds, microseconds = await client.time()
        async with client.pipeline(transaction=False) as pipeline:
            pipeline.xlen(keys.facts)
            pipeline.xrange(keys.facts, count=1)
            pipeline.zcard(keys.due)
            pipeline.zcount(keys.processes, seconds, "+inf")
            pipeline.get(keys.facts_bytes)
            pipeline.hgetall(keys.counts)
            for key in _keys_of_channels(keys):
                pipeline.zcard(key)
                pipeline.zrange(key, 0, 0, withscores=True)
            facts, first, due, processes, facts_bytes, counts, *channels = await pipeline.execute()
    memory = await info(client, "memory")
    now_s = seconds + microseconds / 1e6
    oldest = int(first[0][0].split("-")[0]) / 1000 if first else now_s
    lengths, firsts = channels[0::2], channels[1::2]
    return Depths(
        facts=facts,
        facts_oldest_s=max(0.0, now_s - oldest),
        facts_bytes=int(facts_bytes or 0),
        due=due,
        open={channel: lengths[2 * n] + lengths[2 * n + 1] for n, channel in enumerate(_CHANNELS)},
        oldest_ready_s={channel: _age(firsts[2 * n] + firsts[2 * n + 1], now_s) for n, channel in enumerate(_CHANNELS)},
        memory_bytes=memory.get("used_memory", 0),
        actor_processes=processes,
        dead_letters=int(counts["dead_letters"]) if counts else None,
        held=int(counts["held"]) if counts else None,
    )


async def keep_counts(client: Any, keys: Keys, *, dead_letters: int, held: int) -> None:
    """Keeps what was counted in Postgres for those who look. Raises RedisAway."""
    with told():
        async with client.pipeline(transaction=True) as pipeline:
            pipeline.hset(keys.counts, mapping={"dead_letters": dead_letters, "held": held})
            pipeline.pexpire(keys.counts, _COUNTS_KEPT_MS)
            await pipeline.execute()


async def worked_on(client: Any, keys: Keys) -> set[str]:
    """The queues that some process works on. Raises RedisAway."""
    with told():
        seconds, _ = await client.time()
        return set(await client.zrangebyscore(keys.queues, seconds, "+inf"))


def _keys_of_channels(keys: Keys) -> list[str]:
    return [keys.due_in(channel, critical=critical) for channel in _CHANNELS for critical in (False, True)]


def _age(entries: list[tuple[str, float]], now_s: float) -> float:
    """How long the entry that may start has waited; 0 when the first is not ready yet."""
    return max(0.0, now_s - min((score for _, score in entries), default=now_s * 1000) / 1000)
