"""After Redis was emptied or rolled back: what Postgres has open is put back into motion (design §7, I6, R3).

One process does it, in any that runs actors. Until it is done nothing is routed, claimed or begun; recording, reading
and accepting go on.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Final
from uuid import UUID

from loguru import logger

from tocsin.actors.alerts import Alerts
from tocsin.actors.outages import say
from tocsin.actors.persist import Persister
from tocsin.actors.resume import Resuming
from tocsin.domain.errors import RedisLost, Unavailable
from tocsin.domain.plan import Priority
from tocsin.storage import cancellations, lives, users
from tocsin.storage import rebuild_queries as rows
from tocsin.storage.flight_parts import Again, OpenFlight, OpenStep
from tocsin.storage.rebuild_queries import OpenRow, StoredEvent, Unrouted
from tocsin.storage.recall import Entering, Recall
from tocsin.storage.store import Store

_LOOK_S: Final = 0.2
_AGAIN_S: Final = 1.0
_TESTIMONY_S: Final = 5.0
_NOTICED_S: Final = 1.5
"""Within this every living process has noticed, and said that it is there: it looks once a second."""
_CLOCKS_MS: Final = 2_000
"""By how much the clocks of Redis and Postgres may differ."""
_DRAIN_S: Final = 5.0
_PAGE: Final = 2_000
_DELIVERIES_A_PAGE: Final = 20_000
_EVENTS_A_PAGE: Final = 100


class Rebuilder:
    """Rebuilds Redis when it is lost. `testimony_s` is how long it waits for other processes to tell what they know."""

    def __init__(
        self,
        store: Store,
        persister: Persister,
        lease_ms: int,
        testimony_s: float = _TESTIMONY_S,
        alerts: Alerts | None = None,
    ) -> None:
        self._store = store
        self._alerts = alerts
        self._persister = persister
        self._lease_ms = lease_ms
        self._testimony_s = testimony_s

    async def watch(self) -> None:
        """Runs until it is cancelled."""
        while True:
            try:
                await self._store.life.lost()
                await self.rebuild()
                # Another process may be at it, or this one's is just done.
                await asyncio.sleep(_LOOK_S)
            except Unavailable as error:
                say("the rebuild of Redis", error)
                await asyncio.sleep(_AGAIN_S)
            except Exception:
                logger.exception("the rebuild of Redis failed; it is tried again")
                await asyncio.sleep(_AGAIN_S)

    async def rebuild(self) -> bool:
        """Rebuilds once; False when another process does, or Redis was lost again. Raises Unavailable."""
        async with self._store.postgres.lock("rebuild") as mine:
            coming = self._store.life.coming
            if not mine or not coming:
                return False
            recall = self._store.recall(coming)
            if not await recall.is_wanted():
                self._store.life.doubt()
                return False
            if await self._store.postgres.call(lives.was, coming):
                # It was made ready before and did not begin, or Redis is as it was then.
                await recall.give_up()
                return False
            rebuild = _Rebuild(self._store, recall, coming, await self._prepared(coming), self._lease_ms)
            done = await rebuild.run()
        if done and self._alerts is not None:
            await self._alerts.raise_alert(
                "redis_lost", "Redis was emptied or rolled back, and is rebuilt.", rebuild.counts
            )
        return done

    async def _prepared(self, coming: str) -> lives.Heard:
        """Waits for testimony and until everything told is stored."""
        began_s = time.monotonic()
        while True:
            heard = await self._store.postgres.call(lives.heard, coming)
            waited_s = time.monotonic() - began_s
            if waited_s > (self._testimony_s if heard.missing else min(_NOTICED_S, self._testimony_s)):
                break
            await asyncio.sleep(_LOOK_S)
        while True:
            await self._persister.drain(_DRAIN_S)
            if await self._store.facts.drained(_DRAIN_S):
                return heard


class _Rebuild:
    """One rebuild, with what is counted of it."""

    def __init__(self, store: Store, recall: Recall, coming: str, heard: lives.Heard, lease_ms: int) -> None:
        self._store = store
        self._recall = recall
        self._coming = coming
        self._lost_ms = int(coming.split("-", maxsplit=1)[0])
        self._exact = heard.exact
        self._doubt_ms = None if heard.exact else max(0, self._lost_ms - heard.stored_ms) + _CLOCKS_MS
        """For how long before the loss what was told may be known to nobody."""
        self._resuming = Resuming(heard.exact, self._lost_ms, lease_ms)
        self._counts: Counter[str] = Counter()
        self._entered: set[UUID] = set()
        self._kept: set[UUID] = set()

    async def run(self) -> bool:
        """False when Redis was lost again meanwhile."""
        began_s = time.monotonic()
        try:
            older = await self._recall.clear()
            for asked in await self._store.postgres.call(cancellations.filters):
                await self._store.stops.hold(asked)
            await self._mirror_people()
            await self._enter_unfinished()
            await self._restore_open()
        except RedisLost:
            self._store.life.doubt()
            return False
        cause = "rolled_back" if older else "emptied"
        took_ms = int((time.monotonic() - began_s) * 1000)
        life = lives.Rebuilt(self._coming, self._lost_ms, cause, self._exact, took_ms, dict(self._counts))
        await self._store.postgres.call(lives.store_rebuilt, life)
        if not await self._recall.begin():
            await self._store.postgres.call(lives.withdraw, self._coming)
            return False
        self._store.life.doubt()
        self._say(cause, took_ms)
        # For the time when Postgres is away: nothing has to wait for it.
        with suppress(Unavailable):
            await self._store.keyed.mirror()
        return True

    @property
    def counts(self) -> dict[str, int]:
        """What a person wants to hear of it."""
        return {
            "deliveries": self._counts["restored"], "uncertain": self._resuming.doubted,
            "events": self._counts["events"], "recipients": self._counts["recipients"],
        }  # fmt: skip

    async def _mirror_people(self) -> None:
        now_ms = await self._store.postgres.call(users.clock_ms)
        after = ""
        while page := await self._store.postgres.call(users.all_opt_outs, after, _PAGE):
            await self._store.profiles.renew(page)
            after = page[-1].id
            self._counts["opt_outs"] += len(page)
        await self._store.profiles.mirrored_up_to(now_ms)

    async def _enter_unfinished(self) -> None:
        after = rows.FIRST
        while page := await self._store.postgres.call(rows.unfinished, after, _EVENTS_A_PAGE):
            await self._enter(page)
            after = page[-1].event.id
        short = await self._store.postgres.call(rows.short_of_notifications, self._lost_ms)
        for first in range(0, len(short), _EVENTS_A_PAGE):
            some = short[first : first + _EVENTS_A_PAGE]
            await self._enter(await self._store.postgres.call(rows.stored_events, some))

    async def _enter(self, events: Sequence[StoredEvent]) -> None:
        await self._recall.mark_cancelled([each.event.id for each in events if each.cancelled])
        for each in events:
            found = await self._store.postgres.call(rows.unrouted, each)
            await self._put_back_known(each, found)
            people = list(found.people.values())
            again = Again(found.routed, self._doubt_ms, each.walk)
            await self._recall.enter([Entering(each.event, people, again)])
            await self._recall.keep_inline(each.event, each.recipients)
            self._entered.add(each.event.id)
            self._counts["events"] += 1
            self._counts["recipients"] += len(people)

    async def _put_back_known(self, stored: StoredEvent, found: Unrouted) -> None:
        """What of people whose notifications are still to be made was told of: it is in motion, or done."""
        people = {note: person.id for note, person in found.people.items()}
        await self._recall.mark_read({note: (people[note], at_ms) for note, at_ms in found.read_ms.items()})
        await self._recall.mark_known(stored.event, [(each.notification, each.step) for each in found.known])
        steps = [(each, self._resuming.step(each.step, each.channel, each.history, None)) for each in found.known]
        critical = stored.event.priority is Priority.CRITICAL
        await self._restore(
            [
                OpenFlight(
                    each.notification,
                    people[each.notification],
                    stored.event.id,
                    critical,
                    found.read_ms.get(each.notification, 0),
                    [step],
                )
                for each, step in steps
                if step is not None
            ]
        )

    async def _restore_open(self) -> None:
        # The deliveries of a notification lie scattered among those of its event: in large pages most meet.
        page = await self._page_after(rows.FIRST)
        while page:
            following = asyncio.create_task(self._page_after(page[-1].id))
            try:
                await self._keep_events({row.event for row in page} - self._entered - self._kept)
                # On another thread: sends under way go on meanwhile.
                await self._restore(await asyncio.to_thread(self._flights_of, page))
                page = await following
            finally:
                following.cancel()

    async def _page_after(self, after: UUID) -> list[OpenRow]:
        return await self._store.postgres.call(rows.open_deliveries, after, _DELIVERIES_A_PAGE)

    async def _keep_events(self, wanted: set[UUID]) -> None:
        ordered = sorted(wanted)
        for first in range(0, len(ordered), _EVENTS_A_PAGE):
            some = ordered[first : first + _EVENTS_A_PAGE]
            stored = await self._store.postgres.call(rows.stored_events, some)
            await self._recall.mark_cancelled([each.event.id for each in stored if each.cancelled])
            await self._recall.keep_events([(each.event, each.recipients) for each in stored])
        self._kept |= wanted

    def _flights_of(self, page: Sequence[OpenRow]) -> list[OpenFlight]:
        steps: dict[UUID, list[OpenStep]] = {}
        for row in page:
            step = self._resuming.step(row.step, row.channel, row.history, row.scheduled_ms)
            if step is not None:
                steps.setdefault(row.notification, []).append(step)
        heads = {row.notification: row for row in page}
        return [
            OpenFlight(note, heads[note].user, heads[note].event, heads[note].critical, heads[note].read_ms or 0, some)
            for note, some in steps.items()
        ]

    async def _restore(self, flights: Sequence[OpenFlight]) -> None:
        self._counts["deliveries"] += sum(len(flight.steps) for flight in flights)
        for answer in await self._recall.restore(flights):
            self._counts[answer] += 1

    def _say(self, cause: str, took_ms: int) -> None:
        how = "emptied" if cause == "emptied" else "rolled back"
        logger.warning(
            "Redis was {}; in {} ms {} deliveries, and {} events with {} people to go, were put back in motion;"
            " {} deliveries may have been sent and count as uncertain",
            how, took_ms, self._counts["restored"], self._counts["events"], self._counts["recipients"],
            self._resuming.doubted,
        )  # fmt: skip
