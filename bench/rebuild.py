"""rebuild: how long until everything waits again that waited when Redis was emptied: 100,000 people, each with an SMS
and an email still to come, given inline in ten events.

All of it in this process: from FLUSHALL to the beginning of the next life, noticing and hearing the witnesses included.
What waits afterwards is compared with what waited before, member by member and time by time.
"""

import asyncio
import time
from typing import Any, Final

from tocsin.actors.persist import Persister
from tocsin.actors.rebuild import Rebuilder
from tocsin.bench.report import Figure, under
from tocsin.bench.servers import folder, own_servers
from tocsin.bench.work import event_of, routed
from tocsin.domain.delivery import Channel
from tocsin.domain.event import Recipient
from tocsin.domain.plan import Step
from tocsin.domain.settings import Settings, load
from tocsin.storage.ending import ended
from tocsin.storage.migrate import migrate
from tocsin.storage.postgres import Postgres
from tocsin.storage.store import Store

_WAITING: Final = 100_000
_EVENTS: Final = 10
_A_SECOND: Final = 2_000
"""About how many can be made ready for each second that the stage may take."""
_CEILING_S: Final = 60.0
"""A reconcile period."""
_STEPS: Final = (Step(Channel.IN_APP, 0), Step(Channel.SMS, 3_600_000), Step(Channel.EMAIL, 7_200_000))


def measure(seconds: float) -> list[Figure]:
    """Takes about `seconds`, or as long as 100,000 take to be made ready."""
    waiting = min(_WAITING, int(seconds * _A_SECOND)) // (_EVENTS * 100) * (_EVENTS * 100)
    with folder() as where, own_servers(where / "data") as servers:
        migrate(servers.postgres_url)
        given = {"postgres.url": servers.postgres_url, "redis.url": servers.redis_url, "data.dir": str(where)}
        return [asyncio.run(_measure(load({}).with_values(given), waiting))]


async def _measure(settings: Settings, waiting: int) -> Figure:
    postgres = Postgres(settings.postgres)
    store = await Store.open(settings, postgres)
    persister = Persister(store, "bench")
    client: Any = store._client
    try:
        for number in range(_EVENTS):
            await _waits(store, number, waiting // _EVENTS)
            await persister.drain()
        await store.keeper.look()
        before = dict(await client.zrange("tocsin:due", 0, -1, withscores=True))
        await client.flushall()
        took_s = await _rebuilt(store, Rebuilder(store, persister, settings.actors.lease))
        after = dict(await client.zrange("tocsin:due", 0, -1, withscores=True))
    finally:
        await store.close()
        await postgres.close()
    lost, late = len(before.keys() - after), len(before.items() - after.items())
    return under("rebuild", "s", [took_s], _CEILING_S, waiting=len(before), lost=lost, late=late)


async def _rebuilt(store: Store, rebuilder: Rebuilder) -> float:
    """Seconds from now until the next life has begun and this process works in it."""
    began_s = time.perf_counter()
    tasks = [asyncio.create_task(each) for each in (store.keeper.run(), rebuilder.watch())]
    epoch = store.life.epoch
    while store.life.epoch == epoch:  # noqa: ASYNC110  # what is waited for knows no event
        await asyncio.sleep(0.01)
    took_s = time.perf_counter() - began_s
    await ended(tasks)
    return took_s


async def _waits(store: Store, number: int, people: int) -> None:
    """An event of which everything but its inbox entries is still to come."""
    event = event_of(number, people, _STEPS)
    names = [f"u{number}-{each}" for each in range(people)]
    await store.accept(
        event, [Recipient(id=name, email=f"{name}@example.org", phone="+14155550123") for name in names], None
    )
    await routed(store, event.id)
