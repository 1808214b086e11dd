"""Reconciliation finds what differs between Postgres, Redis and the providers, mends it, and lets be what is late."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry

from tests.scenes import an_event, people, progress_of, route_chunk, routing
from tests.stored import ask, draining, lent
from tests.workbench import place_of
from tocsin.actors import short
from tocsin.actors.alerts import Alerts
from tocsin.actors.fan_out import fan_out
from tocsin.actors.missing import put_back
from tocsin.actors.persist import Persister
from tocsin.actors.reconcile import Reconciler, RunUnderWay
from tocsin.actors.reentering import reenter
from tocsin.actors.route import route
from tocsin.channels.contract import Sender
from tocsin.domain import ids
from tocsin.domain.audience import Audience
from tocsin.domain.delivery import Channel, Status
from tocsin.domain.event import Event
from tocsin.domain.periods import Period
from tocsin.domain.plan import Step
from tocsin.domain.settings import Settings
from tocsin.storage import dropping, ledger, partitions, queries, users
from tocsin.storage.by import By
from tocsin.storage.database import TooSlow, cursor
from tocsin.storage.flight_parts import Claim, Ending
from tocsin.storage.postgres import Postgres
from tocsin.storage.reconciliations import Report
from tocsin.storage.store import Store

pytestmark = pytest.mark.servers

LEASE_MS = 60_000
DAY_MS = 86_400_000
SOON = Step(Channel.SMS, 0)
LATER = Step(Channel.EMAIL, 3_600_000)
FIFTY = [f"u{number}" for number in range(50)]


class Scene:
    """Both stores, a drain that runs or does not, and reconciliation on demand."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.registry = CollectorRegistry()
        self.alerts = Alerts(store, self.registry)
        self.reconciler = Reconciler(store, self.alerts, {})
        self.persister = Persister(store, "tests")
        self.redis: Any = store._client
        self.keys = store._keys

    async def routed(self, event: Event, *users: str) -> list[UUID]:
        """The notifications of an event that is stored and in motion."""
        await self.store.accept(event, people(*users), None)
        page = await self.store.flights.take_page(event, "0")
        assert page.chunk is not None
        routings = [routing(event, user) for user in users]
        await route_chunk(self.store.flights, event, page.chunk, routings)
        return [each.id for each in routings]

    def with_senders(self, senders: Mapping[Channel, Sender]) -> "Scene":
        """The same with providers that can be asked."""
        self.reconciler = Reconciler(self.store, self.alerts, senders)
        return self

    async def run(self, *, repair: bool = True) -> Report:
        return await self.reconciler.run("tests", repair=repair)

    async def run_if_free(self) -> None:
        with suppress(RunUnderWay):
            await self.run()

    async def claim(self, token: str = "t1", *, resend: bool = False) -> list[Claim]:
        return await self.store.attempts.claim(Channel.SMS, token, 100, lease_ms=LEASE_MS, attempts=3, resend=resend)

    async def sending(self, token: str = "t1", *, lease_ms: int = LEASE_MS) -> list[Claim]:
        claims = await self.claim(token)
        assert all(await self.store.attempts.begin(claims, token, lease_ms=lease_ms, detail={"provider": "p"}))
        return claims

    async def statuses(self) -> dict[str, int]:
        """Deliveries in Postgres by status, once it has heard of everything."""
        assert await self.store.caught_up(10)
        return dict(await self.store.postgres.call(ask, "select status, count(*) from deliveries group by status"))

    def draining(self) -> AbstractAsyncContextManager[None]:
        """The journal drains meanwhile."""
        return draining(self.store)

    async def lose(self, notifications: list[UUID]) -> None:
        """Redis forgets them: flights and entries of the index."""
        for note in notifications:
            await self.redis.hdel(*place_of(self.keys, note))
        for index in self.store.motion.indexes:
            await self.redis.delete(index)

    async def lose_event(self, event: Event) -> None:
        """Redis forgets how far an event is, and whom it is for."""
        await self.redis.delete(self.keys.event(event.id), f"{self.keys.namespace}:recipients:{event.id}")
        await self.redis.zrem(self.keys.due, f"e:{event.id}")


@asynccontextmanager
async def opened(settings: Settings, redis_url: str, postgres_url: str) -> AsyncIterator[Scene]:
    """A scene on given servers."""
    made = settings.with_values({"redis.url": redis_url, "postgres.url": postgres_url, "reconcile.wait": "300ms"})
    postgres = Postgres(made.postgres)
    store = await Store.open(made, postgres)
    yield Scene(store)
    await store.close()
    await postgres.close()


@pytest.fixture
async def scene(settings: Callable[..., Settings], redis_url: str, postgres_url: str) -> AsyncIterator[Scene]:
    async with opened(settings(), redis_url, postgres_url) as made:
        yield made


async def test_nothing_is_found_where_nothing_is_wrong(scene: Scene) -> None:
    async with scene.draining():
        await scene.routed(an_event(SOON, LATER), *FIFTY)
        await scene.store.caught_up()
        report = await scene.run()
    assert (report.in_sync, report.difference, report.not_judged, report.checks) == (True, 0, 0, {})
    assert (report.ledger, report.actual, report.whole) == (100, 100, True)


async def test_what_redis_lost_is_put_back_and_goes_out_once(scene: Scene) -> None:
    async with scene.draining():
        event = an_event(SOON, LATER)
        notes = await scene.routed(event, *FIFTY)
        await scene.store.caught_up()
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
        await scene.store.caught_up()
        await scene.lose(notes)
        report = await scene.run(repair=False)
        assert (report.checks["missing"].before, report.checks["missing"].after) == (50, 50)
        assert await scene.claim() == []


async def test_what_fell_out_of_the_index_is_entered_again(scene: Scene) -> None:
    async with scene.draining():
        await scene.routed(an_event(SOON, LATER), *FIFTY)
        await scene.store.caught_up()
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
        await scene.store.caught_up()
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
        await scene.store.caught_up()
        await scene.lose(notes)
        await scene.store.postgres.call(ask, "update deliveries set last_attempted_at = now() - interval '10 minutes'")
        report = await scene.run()
        stuck = report.checks["stuck"]
        assert (stuck.before, stuck.repaired, stuck.after) == (50, 50, 0)
        assert await scene.claim("t2") == []
        assert await scene.statuses() == {"UNCERTAIN": 50}


async def test_what_a_killed_process_was_sending_is_said_to_be_uncertain_while_its_provider_rests(
    scene: Scene,
) -> None:
    """Nobody claims then, and it is not a difference: both stores know of it."""
    async with scene.draining():
        await scene.routed(an_event(SOON), *FIFTY)
        await scene.sending(lease_ms=1)
        assert await scene.statuses() == {"SENDING": 50}
        assert (await scene.run(repair=False)).in_sync
        assert await scene.statuses() == {"SENDING": 50}
        assert (await scene.run()).in_sync
        assert await scene.statuses() == {"UNCERTAIN": 50}


async def test_a_provider_call_that_goes_on_is_waited_for(scene: Scene) -> None:
    async with scene.draining():
        notes = await scene.routed(an_event(SOON), *FIFTY)
        claims = await scene.sending()
        await scene.store.caught_up()
        await scene.lose(notes)
        report = await scene.run()
        assert (report.checks["missing"].before, report.checks["missing"].after) == (50, 0)
        assert await scene.claim("t2") == []
        await scene.store.attempts.record([Ending(claim, Status.SENT, {}) for claim in claims])
        assert await scene.statuses() == {"SENT": 50}
        assert (await scene.run()).in_sync


async def test_with_the_drain_behind_nothing_that_is_merely_late_is_touched(scene: Scene) -> None:
    event = an_event(SOON)
    await scene.routed(event, *FIFTY)
    await scene.persister.drain()
    # From here on Postgres hears of nothing: fifty are sent, and fifty are new.
    claims = await scene.sending()
    await scene.store.attempts.record([Ending(claim, Status.SENT, {}) for claim in claims])
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
        await scene.store.caught_up()
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
        await scene.store.caught_up()
        await scene.lose(notes)
        answers = await asyncio.gather(scene.run(), scene.run(), return_exceptions=True)
        assert sum(isinstance(answer, RunUnderWay) for answer in answers) == 1
        assert len(await scene.claim()) == 50


async def test_an_event_that_stands_still_goes_on(scene: Scene) -> None:
    event = an_event(SOON)
    async with scene.draining():
        await scene.store.accept(event, people(*FIFTY), None)
        await old(scene)
        await scene.redis.zrem(scene.keys.due, f"e:{event.id}")
        report = await scene.run()
        assert (report.checks["events"].before, report.checks["events"].after) == (1, 0)
        page = await scene.store.flights.take_page(event, "0")
        assert page.chunk is not None
        await scene.redis.zrem(scene.keys.due, f"c:{event.id}:{page.chunk}")
        report = await scene.run()
        assert (report.checks["events"].before, report.checks["events"].after) == (1, 0)
    assert await scene.redis.zscore(scene.keys.due, f"c:{event.id}:{page.chunk}") is not None


async def test_an_event_that_redis_lost_goes_on_with_whom_it_had_not_reached(scene: Scene) -> None:
    event = an_event(SOON, recipient_count=150)
    users = [f"u{number}" for number in range(150)]
    async with scene.draining():
        await scene.store.accept(event, people(*users), None)
        page = await scene.store.flights.take_page(event, "0")
        await route_chunk(scene.store.flights, event, page.chunk or 0, [routing(event, user) for user in users[:100]])
        await scene.store.caught_up()
        await old(scene)
        await scene.lose_event(event)
        report = await scene.run()
        assert (report.checks["events"].before, report.checks["events"].after) == (1, 0)
        await fan_out(scene.store, str(event.id))
        await route(scene.store, str(event.id), 0)
        assert await scene.statuses() == {"QUEUED": 150}
        claims = [*await scene.claim("t1"), *await scene.claim("t2")]
    assert len({claim.user for claim in claims}) == len(claims) == 150


@pytest.mark.parametrize("kind", ["recipients", "chunk"])
async def test_an_event_of_which_redis_lost_what_was_left_to_do_goes_on(scene: Scene, kind: str) -> None:
    event = an_event(SOON, recipient_count=50)
    async with scene.draining():
        await scene.store.accept(event, people(*FIFTY), None)
        if kind == "chunk":
            await scene.store.flights.take_page(event, "0")
        await old(scene)
        await scene.redis.delete(scene.keys.recipients(event.id), scene.keys.chunk(event.id, 0))
        report = await scene.run()
        assert (report.checks["events"].before, report.checks["events"].after) == (1, 0)
        await fan_out(scene.store, str(event.id))
        await route(scene.store, str(event.id), 0)
        assert await scene.statuses() == {"QUEUED": 50}


@pytest.mark.parametrize("over", [False, True])
async def test_an_event_that_somebody_entered_meanwhile_is_left_alone(scene: Scene, *, over: bool) -> None:
    """Postgres has not heard yet of what came of it, so it looks as if nobody had been reached."""
    event = an_event(Step(Channel.IN_APP, 0), SOON, recipient_count=50)
    async with scene.draining():
        await scene.store.accept(event, people(*FIFTY), None)
        await scene.store.caught_up()
    await scene.lose_event(event)
    await scene.store.flights.accept(event, people(*FIFTY), None)
    if over:
        page = await scene.store.flights.take_page(event, "0")
        await route_chunk(scene.store.flights, event, page.chunk or 0, [routing(event, user) for user in FIFTY])
    assert await reenter(scene.store, event.id, exact=True) == 0
    assert (await progress_of(scene.store.flights, event)).cursor == ("50" if over else "0")


async def test_an_event_that_redis_lost_with_its_flights_goes_on_too(scene: Scene) -> None:
    event = an_event(SOON, recipient_count=150)
    users = [f"u{number}" for number in range(150)]
    async with scene.draining():
        await scene.store.accept(event, people(*users), None)
        page = await scene.store.flights.take_page(event, "0")
        routings = [routing(event, user) for user in users[:100]]
        await route_chunk(scene.store.flights, event, page.chunk or 0, routings)
        await old(scene)
        await scene.lose_event(event)
        await scene.lose([each.id for each in routings])
        report = await scene.run()
        # What is put back brings the event's content with it, which does not say how far the event is.
        assert (report.checks["missing"].before, report.checks["missing"].after) == (100, 0)
        assert (report.checks["events"].before, report.checks["events"].after) == (1, 0)
        await fan_out(scene.store, str(event.id))
        await route(scene.store, str(event.id), 0)
        assert await scene.statuses() == {"QUEUED": 150}


async def test_an_event_that_redis_lost_and_somebody_withdrew_comes_to_its_end_and_sends_nothing(scene: Scene) -> None:
    event = an_event(SOON, recipient_count=50)
    async with scene.draining():
        await scene.store.accept(event, people(*FIFTY), None)
        await scene.store.flights.take_page(event, "0")
        await scene.store.stops.withdraw([event.id], "changed plans", "tests", event.accepted_ms)
        await scene.store.caught_up()
        await old(scene)
        await scene.lose_event(event)
        await scene.redis.delete(scene.keys.cancelled(event.id))
        report = await scene.run()
        assert (report.checks["events"].before, report.checks["events"].after) == (1, 0)
        await fan_out(scene.store, str(event.id))
        await route(scene.store, str(event.id), 0)
        assert await scene.statuses() == {"CANCELLED": 50}
        assert await scene.store.postgres.call(ask, "select status from events") == [("COMPLETED",)]


async def test_recipients_without_their_notification_are_made_up_for(scene: Scene) -> None:
    event = an_event(SOON, recipient_count=50)
    async with scene.draining():
        await scene.routed(event, *FIFTY)
        await scene.store.caught_up()
        lost = [str(ids.notification_id(event.id, user)) for user in FIFTY[:10]]
        for table, column in (("deliveries", "notification_id"), ("notifications", "id")):
            await scene.store.postgres.call(ask, f"delete from {table} where {column} = any(%s::uuid[])", lost)
        for note in lost:
            await scene.redis.hdel(*place_of(scene.keys, note))
            await scene.redis.zrem(scene.keys.due_in("SMS"), f"{note}:1")
        report = await scene.run()
        assert (report.checks["unrouted"].before, report.checks["unrouted"].after) == (10, 0)
        await fan_out(scene.store, str(event.id))
        await route(scene.store, str(event.id), 0)
        assert len(await scene.claim()) == 40
        # The others may have been reached: what is not known is said, and SMS is held.
        assert await scene.statuses() == {"QUEUED": 40, "UNCERTAIN": 10}


async def test_what_was_dropped_with_its_time_is_neither_made_up_for_nor_counted_anew(
    scene: Scene, postgres_url: str
) -> None:
    at_ms = await scene.store.flights.now_ms() - 100 * DAY_MS
    with lent(postgres_url), cursor() as query:
        partitions.make_ahead(query, Period.DAY, at_ms)
    event = an_event(Step(Channel.IN_APP, 0), id=ids.event_id(at_ms, bytes(10)), recipient_count=50)
    async with scene.draining():
        await scene.routed(event, *FIFTY)
        await scene.store.caught_up()
        await asyncio.to_thread(dropping.drop, postgres_url, at_ms + 2 * DAY_MS, "ops")
        assert await scene.store.postgres.call(ask, "select from notifications") == []
        report = await scene.run()
    assert (report.in_sync, report.checks) == (True, {})
    counted = await scene.store.postgres.call(queries.counts_of, [event.id])
    assert counted[event.id].notifications == 50


async def test_what_postgres_cannot_count_in_time_is_judged_by_its_counts(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_slow(*_: Any, **__: Any) -> Any:
        raise TooSlow("Postgres is too busy for this (57014)")

    monkeypatch.setattr(short, "made", too_slow)
    monkeypatch.setattr(short.queries, "miscounted", too_slow)
    monkeypatch.setattr(short, "_ROWS_AT_ONCE", 60)
    async with scene.draining():
        for _ in range(2):
            await scene.routed(an_event(SOON, recipient_count=50), *FIFTY)
        await scene.store.caught_up()
        report = await scene.run()
        assert (report.in_sync, report.not_judged) == (True, 4)
        # It does not look at the same ones for ever.
        assert (await scene.run()).not_judged == 0


@pytest.mark.parametrize("later_ms", [0, 3_600_000])
async def test_who_is_found_in_an_audience_long_after_may_have_joined_since(scene: Scene, later_ms: int) -> None:
    event = an_event(Step(Channel.IN_APP, 0), recipient_count=None, audience=Audience(everyone=True))
    async with scene.draining():
        await scene.store.postgres.call(users.import_users, [{"id": "u1"}])
        await scene.store.accept(event, people("u2"), None)
        await fan_out(scene.store, str(event.id))
        for chunk in range(2):
            await route(scene.store, str(event.id), chunk)
        await scene.store.caught_up()
        (complete,) = await scene.store.postgres.call(ask, "select status, expected from events")
        assert complete == ("COMPLETED", 2)
        await scene.store.postgres.call(users.import_users, [{"id": "u3"}])
        await scene.store.postgres.call(ask, "delete from notifications where user_id = 'u1'")
        earlier = "update events set completed_at = completed_at - %s * interval '1 ms'"
        await scene.store.postgres.call(ask, earlier, later_ms)
        report = await scene.run()
    check = report.checks["unrouted"]
    assert (check.before, check.repaired) == ((1, 0) if later_ms else (1, 1))


async def test_keys_that_nothing_would_remove_go_when_two_runs_agree(scene: Scene) -> None:
    done, gone = an_event(SOON), an_event(SOON)
    async with scene.draining():
        await scene.routed(done, *FIFTY)
        await scene.redis.persist(scene.keys.event(done.id))
        await scene.redis.rpush(scene.keys.chunk(gone.id, 3), "{}")
        await scene.redis.rpush(f"{scene.keys.namespace}:recipients:{gone.id}", "{}")
        await scene.redis.hset(scene.keys.event(gone.id), "routed", "1")
        reports = [await scene.run() for _ in range(3)]
    assert [report.checks["leftovers"].repaired for report in reports[:2]] == [0, 3]
    assert reports[2].in_sync
    assert await scene.redis.pttl(scene.keys.event(done.id)) > 0
    assert await scene.redis.pttl(scene.keys.event(gone.id)) > 0
    assert await scene.redis.exists(scene.keys.chunk(gone.id, 3), f"{scene.keys.namespace}:recipients:{gone.id}") == 0


async def old(scene: Scene) -> None:
    """What was accepted was so a while ago."""
    assert await scene.store.caught_up(10)
    await scene.store.postgres.call(ask, "update events set accepted_at = accepted_at - interval '1 minute'")


async def test_a_repair_and_a_claim_at_once_send_once(scene: Scene) -> None:
    async with scene.draining():
        notes = await scene.routed(an_event(SOON), *FIFTY)
        await scene.store.caught_up()
        await scene.lose(notes)
        sent: list[Claim] = []

        async def send(token: str) -> None:
            for turn in range(10):
                claims = await scene.sending(f"{token}-{turn}")
                await scene.store.attempts.record([Ending(claim, Status.SENT, {}) for claim in claims])
                sent.extend(claims)

        await asyncio.gather(scene.run(), *(send(f"t{number}") for number in range(4)))
        await scene.run()
        await send("last")
        assert await scene.statuses() == {"SENT": 50}
    assert len({(claim.notification, claim.attempt) for claim in sent}) == len(sent) == 50


async def test_a_repair_and_a_replay_at_once_send_once(scene: Scene) -> None:
    async with scene.draining():
        notes = await scene.routed(an_event(SOON), *FIFTY)
        claims = await scene.sending()
        await scene.store.attempts.record([Ending(claim, Status.FAILED, {}) for claim in claims])
        assert await scene.statuses() == {"FAILED": 50}
        wanted = [ids.delivery_id(note, 1, Channel.SMS) for note in notes]
        replays = [scene.store.revival.replay_one(each, By("tests", "c1")) for each in wanted]
        await asyncio.gather(scene.run(), *replays, scene.run_if_free())
        await scene.run()
        again = await scene.sending("t2")
        await scene.store.attempts.record([Ending(claim, Status.SENT, {}) for claim in again])
        assert await scene.statuses() == {"SENT": 50}
        assert (await scene.run()).in_sync
    assert {claim.attempt for claim in again} == {2}
    assert len({claim.notification for claim in again}) == len(again) == 50


async def test_what_changed_since_it_was_looked_for_is_left_for_the_next_run(scene: Scene) -> None:
    async with scene.draining():
        (note,) = await scene.routed(an_event(SOON), "asha")
        await scene.store.caught_up()
        (looked_for,) = await scene.store.postgres.call(ledger.open_page, None, 10)
        await scene.lose([note])
        await scene.store.postgres.call(ask, "update deliveries set price = '1'")
        seen = {looked_for.id: looked_for.version}
        (judged,) = await scene.store.postgres.call(put_back, seen, LEASE_MS, None)
        assert judged.answer == "doubted"
        assert (await scene.run()).checks["missing"].repaired == 1
