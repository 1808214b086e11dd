"""Reconciliation finds what differs between Postgres, Redis and the providers, mends it, and lets be what is late."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry

from tests.scenes import an_event, people, routing
from tests.stored import ask
from tocsin.actors.alerts import Alerts
from tocsin.actors.persist import Persister
from tocsin.actors.reconcile import Reconciler, RunUnderWay
from tocsin.domain import ids
from tocsin.domain.delivery import Channel, Status
from tocsin.domain.event import Event
from tocsin.domain.plan import Step
from tocsin.domain.settings import Settings
from tocsin.storage.flights import Claim, Ending
from tocsin.storage.postgres import Postgres
from tocsin.storage.reconciliations import Report
from tocsin.storage.store import Store

pytestmark = pytest.mark.servers

LEASE_MS = 60_000
SOON = Step(Channel.SMS, 0)
LATER = Step(Channel.EMAIL, 3_600_000)
FIFTY = [f"u{number}" for number in range(50)]


class Scene:
    """Both stores, a drain that runs or does not, and reconciliation on demand."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.registry = CollectorRegistry()
        self.reconciler = Reconciler(store, Alerts(store, self.registry), {})
        self.persister = Persister(store, "tests")
        self.redis: Any = store._client
        self.keys = store._keys

    async def routed(self, event: Event, *users: str) -> list[UUID]:
        """The notifications of an event that is stored and in motion."""
        await self.store.accept(event, people(*users), None)
        page = await self.store.flights.take_page(event, 0)
        assert page.chunk is not None
        routings = [routing(event, user) for user in users]
        await self.store.flights.route(event, page.chunk, routings)
        return [each.id for each in routings]

    async def run(self, *, repair: bool = True) -> Report:
        return await self.reconciler.run("tests", repair=repair)

    async def claim(self, token: str = "t1", *, resend: bool = False) -> list[Claim]:
        return await self.store.flights.claim(Channel.SMS, token, 100, lease_ms=LEASE_MS, attempts=3, resend=resend)

    async def sending(self, token: str = "t1") -> list[Claim]:
        claims = await self.claim(token)
        assert all(await self.store.flights.begin(claims, token, lease_ms=LEASE_MS, detail={"provider": "p"}))
        return claims

    async def statuses(self) -> dict[str, int]:
        """Deliveries in Postgres by status, once it has heard of everything."""
        assert await self.store.settled(10)
        return dict(await self.store.postgres.call(ask, "select status, count(*) from deliveries group by status"))

    @asynccontextmanager
    async def draining(self) -> AsyncIterator[None]:
        """The journal drains meanwhile."""

        over = asyncio.Event()

        async def drain() -> None:
            while not over.is_set():
                await self.persister.drain()
                await asyncio.sleep(0.01)

        task = asyncio.create_task(drain())
        try:
            yield
        finally:
            over.set()
            await task

    async def lose(self, notifications: list[UUID]) -> None:
        """Redis forgets them: flights and entries of the index."""
        for note in notifications:
            await self.redis.hdel(*self.keys.flight(str(note)))
        for index in self.store.motion.indexes:
            await self.redis.delete(index)


@pytest.fixture
async def scene(settings: Callable[..., Settings], redis_url: str, postgres_url: str) -> AsyncIterator[Scene]:
    made = settings({"redis.url": redis_url, "postgres.url": postgres_url, "reconcile.wait": "300ms"})
    postgres = Postgres(made.postgres)
    store = await Store.open(made, postgres)
    yield Scene(store)
    await store.close()
    await postgres.close()


async def test_nothing_is_found_where_nothing_is_wrong(scene: Scene) -> None:
    async with scene.draining():
        await scene.routed(an_event(SOON, LATER), *FIFTY)
        await scene.store.settled()
        report = await scene.run()
    assert (report.in_sync, report.difference, report.not_judged, report.checks) == (True, 0, 0, {})
    assert (report.ledger, report.actual, report.whole) == (100, 100, True)


async def test_what_redis_lost_is_put_back_and_goes_out_once(scene: Scene) -> None:
    async with scene.draining():
        event = an_event(SOON, LATER)
        notes = await scene.routed(event, *FIFTY)
        await scene.store.settled()
        await scene.lose(notes)
        report = await scene.run()
        missing = report.checks["missing"]
        assert (missing.before, missing.repaired, missing.after) == (100, 100, 0)
        assert (report.ledger, report.actual, report.in_sync) == (100, 0, False)
        assert [(each.event, each.count) for each in report.worst] == [(str(event.id), 100)]
        assert len(await scene.claim()) == 50
        assert await scene.redis.zcard(scene.keys.due) == 50
        assert (await scene.run()).in_sync


async def test_without_repair_nothing_is_changed(scene: Scene) -> None:
    async with scene.draining():
        notes = await scene.routed(an_event(SOON), *FIFTY)
        await scene.store.settled()
        await scene.lose(notes)
        report = await scene.run(repair=False)
        assert (report.checks["missing"].before, report.checks["missing"].after) == (50, 50)
        assert await scene.claim() == []


async def test_what_fell_out_of_the_index_is_entered_again(scene: Scene) -> None:
    async with scene.draining():
        await scene.routed(an_event(SOON, LATER), *FIFTY)
        await scene.store.settled()
        await scene.redis.delete(scene.keys.due, scene.keys.due_in("SMS"))
        seen = await scene.run(repair=False)
        assert (seen.checks["unindexed"].before, seen.checks["unindexed"].repaired) == (100, 0)
        report = await scene.run()
        assert (report.checks["unindexed"].before, report.checks["unindexed"].after) == (100, 0)
        assert len(await scene.claim()) == 50
        assert await scene.redis.zcard(scene.keys.due) == 50


async def test_what_postgres_does_not_know_is_taken_out_when_two_runs_agree(scene: Scene) -> None:
    async with scene.draining():
        known = await scene.routed(an_event(SOON, LATER), "asha")
        strange = an_event(SOON, LATER)
        await scene.routed(strange, *FIFTY)
        await scene.store.settled()
        for table in ("deliveries", "notifications"):
            await scene.store.postgres.call(ask, f"delete from {table} where event_id = %s", str(strange.id))
        await scene.store.postgres.call(ask, "delete from events where id = %s", str(strange.id))
        seen = await scene.run()
        assert (seen.checks["orphans"].before, seen.checks["orphans"].repaired) == (100, 0)
        agreed = await scene.run()
        assert (agreed.checks["orphans"].before, agreed.checks["orphans"].after) == (100, 0)
        (claim,) = await scene.claim()
        assert claim.notification == known[0]
        assert await scene.redis.zcard(scene.keys.due) == 1
        assert (await scene.run()).in_sync


async def test_entries_without_anything_behind_are_taken_out_when_two_runs_agree(scene: Scene) -> None:
    async with scene.draining():
        strangers = [ids.notification_id(an_event().id, user) for user in FIFTY]
        await scene.redis.zadd(scene.keys.due, {f"n:{note}": 9e12 for note in strangers})
        await scene.redis.zadd(scene.keys.due_in("SMS"), {f"{note}:1": 9e12 for note in strangers})
        await scene.redis.zadd(scene.keys.due, {f"e:{an_event().id}": 9e12, f"c:{an_event().id}:3": 9e12})
        reports = [await scene.run() for _ in range(3)]
    assert [report.checks["entries"].repaired for report in reports[:2]] == [0, 102]
    assert reports[2].in_sync
    assert await scene.redis.exists(scene.keys.due, scene.keys.due_in("SMS")) == 0


async def test_a_provider_call_that_nobody_holds_becomes_uncertain(scene: Scene) -> None:
    async with scene.draining():
        notes = await scene.routed(an_event(SOON), *FIFTY)
        await scene.sending()
        await scene.store.settled()
        await scene.lose(notes)
        await scene.store.postgres.call(ask, "update deliveries set last_attempted_at = now() - interval '10 minutes'")
        report = await scene.run()
        stuck = report.checks["stuck"]
        assert (stuck.before, stuck.repaired, stuck.after) == (50, 50, 0)
        assert await scene.claim("t2") == []
        assert await scene.statuses() == {"UNCERTAIN": 50}


async def test_a_provider_call_that_goes_on_is_waited_for(scene: Scene) -> None:
    async with scene.draining():
        notes = await scene.routed(an_event(SOON), *FIFTY)
        claims = await scene.sending()
        await scene.store.settled()
        await scene.lose(notes)
        report = await scene.run()
        assert (report.checks["missing"].before, report.checks["missing"].after) == (50, 0)
        assert await scene.claim("t2") == []
        await scene.store.flights.record([Ending(claim, Status.SENT, {}) for claim in claims])
        assert await scene.statuses() == {"SENT": 50}
        assert (await scene.run()).in_sync


async def test_with_the_drain_behind_nothing_that_is_merely_late_is_touched(scene: Scene) -> None:
    event = an_event(SOON)
    await scene.routed(event, *FIFTY)
    await scene.persister.drain()
    # From here on Postgres hears of nothing: fifty are sent, and fifty are new.
    claims = await scene.sending()
    await scene.store.flights.record([Ending(claim, Status.SENT, {}) for claim in claims])
    await scene.routed(an_event(SOON), *(f"v{number}" for number in range(50)))
    before = await everything(scene)
    for _ in range(2):
        report = await scene.run()
        assert (report.difference, report.not_judged) == (0, 100)
        assert {name: check.not_judged for name, check in report.checks.items()} == {"missing": 50, "orphans": 50}
    assert await everything(scene) == before
    async with scene.draining():
        report = await scene.run()
    assert (report.in_sync, report.not_judged) == (True, 0)
    assert len(await scene.claim("t2")) == 50


async def everything(scene: Scene) -> dict[str, Any]:
    """What is in motion, exactly."""
    found: dict[str, Any] = {
        index: await scene.redis.zrange(index, 0, -1, withscores=True) for index in scene.store.motion.indexes
    }
    for bucket in await scene.redis.keys(f"{scene.keys.namespace}:flight:*"):
        found[bucket] = await scene.redis.hgetall(bucket)
    return found


async def test_what_postgres_refused_to_store_is_left_alone(scene: Scene) -> None:
    async with scene.draining():
        notes = await scene.routed(an_event(SOON), *FIFTY)
        await scene.store.settled()
        await scene.lose(notes)
        await scene.store.postgres.call(
            ask,
            "insert into bad_facts (entry_id, facts, why)"
            " select '1-1', convert_to(string_agg(id::text, ','), 'UTF8'), '' from notifications",
        )
        report = await scene.run()
    assert (report.difference, report.not_judged) == (0, 50)
    assert await scene.claim() == []


async def test_of_two_runs_at_once_one_is_refused(scene: Scene) -> None:
    async with scene.draining():
        notes = await scene.routed(an_event(SOON), *FIFTY)
        await scene.store.settled()
        await scene.lose(notes)
        answers = await asyncio.gather(scene.run(), scene.run(), return_exceptions=True)
        assert sum(isinstance(answer, RunUnderWay) for answer in answers) == 1
        assert len(await scene.claim()) == 50
