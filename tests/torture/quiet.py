"""Waits until nothing moves any more."""

import asyncio
import time

import psycopg2
from redis.exceptions import RedisError
from rich.console import Console

from tests.torture.ledger import now_ms
from tests.torture.world import FAR_MS, World

_OPEN = """
select (select count(*) from deliveries where status in ('SCHEDULED', 'QUEUED', 'RETRYING', 'SENDING')
    and (status <> 'SCHEDULED' or scheduled_for is null or scheduled_for < now() + %s * interval '1 ms')),
  (select count(*) from events where accepted_at is not null and status in ('PENDING', 'PROCESSING'))
"""
_TWICE = 2
_SAY_EVERY_S = 10.0


async def quiet(world: World, limit_s: float, console: Console) -> tuple[float, str]:
    """How long it took, and what still moved at the limit ('' when nothing did)."""
    began, still, said = time.monotonic(), 0, 0.0
    while True:
        moving = await asyncio.to_thread(_moving, world)
        if moving and time.monotonic() - said > _SAY_EVERY_S:
            said = time.monotonic()
            console.print(f"waiting for quiet: {moving}")
        still = 0 if moving else still + 1
        took_s = time.monotonic() - began
        if still >= _TWICE or took_s > limit_s:
            return took_s, moving
        await asyncio.sleep(1)


def _moving(world: World) -> str:
    """What moves, in words."""
    try:
        facts = world.redis.xlen("tocsin:facts")
        soon = world.redis.zcount("tocsin:due", "-inf", now_ms() + FAR_MS)
        started = sum(world.redis.zcard(name) for name in world.redis.scan_iter("tocsin:due:*", count=1000))
        connection = psycopg2.connect(world.postgres_url)
        try:
            with connection.cursor() as query:
                query.execute(_OPEN, [FAR_MS])
                unfinished, events = query.fetchone() or (0, 0)
        finally:
            connection.close()
    except (RedisError, psycopg2.Error) as error:
        return f"a server does not answer: {type(error).__name__}"
    counts = {
        "facts in the journal": facts,
        "entries that are due": soon,
        "deliveries started": started,
        "open deliveries in Postgres": unfinished,
        "events not fanned out": events,
        "receipts to be told": world.twilio.telling,
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)
