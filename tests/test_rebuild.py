"""Redis is emptied or rolled back: everything accepted is put back into motion, and nothing is sent twice."""

import os
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry

from tests.scenes import an_event, people
from tocsin.actors import queues
from tocsin.actors.alerts import Alerts
from tocsin.actors.fan_out import fan_out
from tocsin.actors.persist import Persister
from tocsin.actors.rebuild import Rebuilder
from tocsin.actors.route import route
from tocsin.domain import ids
from tocsin.domain.delivery import Channel, Status
from tocsin.domain.errors import RedisLost
from tocsin.domain.event import Contact, Event
from tocsin.domain.plan import Step
from tocsin.domain.settings import load
from tocsin.storage.by import By
from tocsin.storage.cancellations import Cancellation, Wanted
from tocsin.storage.database import cursor
from tocsin.storage.dead_letters import LetterFilter
from tocsin.storage.event_queries import event_audit
from tocsin.storage.flight_parts import Claim, Ending
from tocsin.storage.postgres import Postgres
from tocsin.storage.store import Store

pytestmark = pytest.mark.servers

LEASE_MS = 60_000
IN_APP = Step(Channel.IN_APP, 0)
SMS_NOW = Step(Channel.SMS, 0)
SMS_LATER = Step(Channel.SMS, 3_600_000)
EMAIL_LATER = Step(Channel.EMAIL, 7_200_000)


class Process:
    """A process that runs actors, step by step."""

    def __init__(self, store: Store, testimony_s: float = 0.3) -> None:
        self.store = store
        self.persister = Persister(store, "persister")
        self.rebuilder = Rebuilder(store, self.persister, LEASE_MS, testimony_s)
        self.client: Any = store._client
        self.name: str = store.keeper._name

    async def flush(self) -> None:
        await self.client.flushall()

    async def stored(self) -> None:
        """Stores what the journal holds, and lets the process learn of it."""
        await self.persister.drain()
        await self.store.keeper.look()

    async def rebuilt(self) -> bool:
        """Notices, rebuilds, and goes on in the new life."""
        await self.store.keeper.look()
        done = await self.rebuilder.rebuild()
        await self.store.keeper.look()
        return done

    async def claim(self, channel: Channel = Channel.SMS, *, resend: bool = False) -> list[Claim]:
        await self.store.flights.escalate(queues.SENDING_CHANNELS)
        token = os.urandom(8).hex()
        return await self.store.attempts.claim(channel, token, 100, lease_ms=LEASE_MS, attempts=3, resend=resend)

    async def begun(self, channel: Channel = Channel.SMS) -> list[Claim]:
        claims = await self.claim(channel)
        detail = {"provider": "p"}
        assert all(await self.store.attempts.begin(claims, claims[0].token, lease_ms=LEASE_MS, detail=detail))
        return claims

    async def route_all(self, event: Event) -> None:
        """What the actors of fan-out and routing do."""
        await fan_out(self.store, str(event.id))
        for chunk in range(1 + event.recipient_count // 100):
            await route(self.store, str(event.id), chunk)

    async def accept(self, event: Event, *names: str) -> None:
        await self.store.accept(event, people(*names), None)

    async def statuses(self, event: Event, channel: Channel = Channel.SMS) -> dict[str, int]:
        audit = await self.store.postgres.call(event_audit, event.id)
        assert audit is not None
        return audit.counts.by_channel.get(channel, {})

    async def ask(self, statement: str, *values: Any) -> list[Any]:
        def run() -> list[Any]:
            with cursor() as query:
                query.execute(statement, values)
                return list(query.fetchall()) if query.description else []

        return await self.store.postgres.call(run)


async def opened(redis_url: str, postgres_url: str) -> AsyncIterator[Process]:
    settings = load({}).with_values({"postgres.url": postgres_url, "redis.url": redis_url})
    postgres = Postgres(settings.postgres)
    store = await Store.open(settings, postgres)
    await store.keeper.look()
    yield Process(store)
    await store.close()
    await postgres.close()


@pytest.fixture
async def process(redis_url: str, postgres_url: str) -> AsyncIterator[Process]:
    async for made in opened(redis_url, postgres_url):
        yield made


@pytest.fixture
async def other(process: Process, redis_url: str, postgres_url: str) -> AsyncIterator[Process]:
    async for made in opened(redis_url, postgres_url):
        yield made


def an_event_of(*steps: Step, count: int = 1, **given: Any) -> Event:
    return an_event(*steps, recipient_count=count, **given)


async def test_what_waits_for_its_time_waits_again_for_the_same_time(process: Process) -> None:
    event = an_event_of(IN_APP, SMS_LATER, EMAIL_LATER, count=2)
    await process.accept(event, "u1", "u2")
    await process.route_all(event)
    await process.stored()
    before = sorted(await process.client.zrange("tocsin:due", 0, -1, withscores=True))
    await process.flush()
    assert await process.rebuilt()
    assert sorted(await process.client.zrange("tocsin:due", 0, -1, withscores=True)) == before
    (life,) = await process.ask("select cause, exact, counts from lives order by number desc limit 1")
    assert life == ("emptied", True, {"deliveries": 4, "restored": 4})


async def test_a_loss_raises_an_alert_that_says_what_it_cost(process: Process) -> None:
    registry = CollectorRegistry()
    process.rebuilder = Rebuilder(process.store, process.persister, LEASE_MS, 0.3, Alerts(process.store, registry))
    event = an_event_of(SMS_NOW, count=2)
    await process.accept(event, "u1", "u2")
    await process.route_all(event)
    await process.stored()
    await process.flush()
    assert await process.rebuilt()
    assert registry.get_sample_value("tocsin_alerts_total", {"kind": "redis_lost"}) == 1


async def test_nothing_is_started_in_a_redis_that_was_emptied(process: Process) -> None:
    event = an_event_of(SMS_NOW)
    await process.accept(event, "u1")
    await process.route_all(event)
    (claim,) = await process.claim()
    await process.flush()
    flights, attempts = process.store.flights, process.store.attempts
    for call in (
        flights.escalate([Channel.SMS]),
        attempts.claim(Channel.SMS, "t", 1, lease_ms=1, attempts=1, resend=False),
        attempts.begin([claim], claim.token, lease_ms=1, detail={}),
        flights.take_page(event, "0"),
        flights.route(event, 0, [], ""),
    ):
        with pytest.raises(RedisLost):
            await call


async def test_a_delivery_that_nobody_had_begun_is_sent_as_if_nothing_had_been(process: Process) -> None:
    event = an_event_of(SMS_NOW)
    await process.accept(event, "u1")
    await process.route_all(event)
    await process.stored()
    await process.claim()
    await process.flush()
    assert await process.rebuilt()
    (claim,) = await process.claim()
    assert claim.attempt == 1


async def test_one_that_a_dead_process_may_have_begun_is_uncertain_and_the_channel_decides(
    process: Process, other: Process
) -> None:
    event = an_event_of(SMS_NOW, Step(Channel.EMAIL, 0))
    await process.accept(event, "u1")
    await process.route_all(event)
    await process.stored()
    await process.flush()
    assert await process.rebuilt()  # the other one does not say a word
    assert await process.claim(Channel.SMS, resend=False) == []
    (again,) = await process.claim(Channel.EMAIL, resend=True)
    assert again.attempt == 2
    await process.stored()
    assert await process.statuses(event) == {"UNCERTAIN": 1}
    (reason,) = await process.ask("select reason from deliveries where channel = 'SMS'")
    assert reason == ("redis_lost",)


@pytest.mark.parametrize("since", ["", "read", "withdrawn"])
async def test_what_may_have_begun_since_anything_was_stored_is_uncertain_and_what_may_not_waits(
    process: Process, other: Process, since: str
) -> None:
    """Routed, and who knows what else, while Postgres was away, by a process that died; then Redis was emptied."""
    event = an_event_of(IN_APP, Step(Channel.EMAIL, 0), Step(Channel.SMS, 5_000), Step(Channel.EMAIL, 60_000))
    await process.accept(event, "u1")
    await process.stored()
    await process.ask("update witnesses set drained_at = now() - interval '20 seconds'")
    await other.route_all(event)
    note = ids.notification_id(event.id, "u1")
    if since == "read":
        await process.store.read("u1", [note])
    elif since == "withdrawn":
        await process.store.stops.withdraw([event.id], "changed plans", "editor", 1)
    await process.flush()
    assert await process.rebuilt()  # the other one does not say a word
    await process.route_all(event)
    again = [each for channel in (Channel.EMAIL, Channel.SMS) for each in await process.claim(channel, resend=True)]
    assert [each.attempt for each in again] == ([] if since else [2, 2])
    await process.stored()
    told = await process.ask("select channel, status, history ? '1:UNCERTAIN' from deliveries order by step")
    ends = "UNCERTAIN" if since else "RETRYING"
    waits = "CANCELLED" if since else "SCHEDULED"
    assert told == [("IN_APP", "DELIVERED" if since != "withdrawn" else "CANCELLED", False), ("EMAIL", ends, True),
        ("SMS", ends, True), ("EMAIL", waits, False)]  # fmt: skip


async def routed_by(other: Process, process: Process) -> Event:
    """An event that is stored; that `other` has routed it is not."""
    event = an_event_of(SMS_NOW)
    await process.accept(event, "u1")
    await process.stored()
    await other.route_all(event)
    return event


async def test_what_may_have_begun_stays_in_doubt_when_its_event_is_given_up_and_replayed(
    process: Process, other: Process
) -> None:
    event = await routed_by(other, process)
    assert len(await other.begun()) == 1
    await process.flush()
    assert await process.rebuilt()  # the other one does not say a word
    while await process.store.flights.back_off(f"e:{event.id}", event.id, error="ValueError"):
        pass
    await process.stored()
    replayed, _ = await process.store.revival.replay(LetterFilter(ids=(event.id,)), 10, By("admin", "c1"))
    assert replayed.replayed == [event.id]
    await process.route_all(event)
    assert await process.claim() == []
    await process.stored()
    assert await process.statuses(event) == {"UNCERTAIN": 1}


async def test_what_is_known_of_an_attempt_is_not_hidden_by_what_happened_to_its_event_since(
    process: Process, other: Process
) -> None:
    """Who routed it died long before the loss; who sent it tells that nobody knows whether it went out."""
    event = await routed_by(other, process)
    (claim,) = await process.begun()
    await process.store.attempts.record([Ending(claim, Status.UNCERTAIN, {"provider": "p", "reason": "timeout"})])
    await process.store.stops.withdraw([event.id], "changed plans", "editor", 1)
    await process.ask("delete from witnesses where name = %s", other.name)
    await process.flush()
    assert await process.rebuilt()
    await process.route_all(event)
    await process.stored()
    assert await process.statuses(event) == {"UNCERTAIN": 1}


async def test_a_send_under_way_ends_as_its_sender_says(process: Process) -> None:
    event = an_event_of(SMS_NOW)
    await process.accept(event, "u1")
    await process.route_all(event)
    await process.stored()
    (claim,) = await process.begun()
    await process.flush()
    assert await process.rebuilt()
    assert await process.claim() == []
    await process.store.attempts.record([Ending(claim, Status.SENT, {"provider": "p"})])
    await process.stored()
    assert await process.statuses(event) == {"SENT": 1}
    assert not await process.client.keys("tocsin:flight:*")


@pytest.mark.parametrize("when", ["before anybody noticed", "before the rebuild", "after it"])
async def test_what_was_sent_is_not_sent_again(process: Process, when: str) -> None:
    event = an_event_of(SMS_NOW)
    await process.accept(event, "u1")
    await process.route_all(event)
    await process.stored()
    (claim,) = await process.begun()
    sent = [Ending(claim, Status.SENT, {"provider": "p"})]
    if when == "before anybody noticed":
        await process.store.attempts.record(sent)
    await process.flush()
    await process.store.keeper.look()
    if when == "before the rebuild":
        await process.store.attempts.record(sent)
    assert await process.rebuilt()
    if when == "after it":
        await process.store.attempts.record(sent)
    assert await process.claim(resend=True) == []
    await process.stored()
    assert await process.statuses(event) == {"SENT": 1}


@pytest.mark.parametrize("when", ["before the loss", "before the rebuild"])
async def test_what_failed_is_tried_again_at_its_time(process: Process, when: str) -> None:
    event = an_event_of(SMS_NOW)
    await process.accept(event, "u1")
    await process.route_all(event)
    await process.stored()
    (claim,) = await process.begun()
    failed = [Ending(claim, Status.FAILED, {"provider": "p"}, retry_in_ms=1)]
    if when == "before the loss":
        await process.store.attempts.record(failed)
    await process.flush()
    if when == "before the rebuild":
        await process.store.attempts.record(failed)
    assert await process.rebuilt()
    (again,) = await process.claim()
    assert again.attempt == 2


@pytest.mark.parametrize("when", ["before the loss", "before it is noticed", "before the rebuild"])
async def test_what_was_read_is_not_sent(process: Process, when: str) -> None:
    event = an_event_of(IN_APP, SMS_NOW)
    await process.accept(event, "u1")
    await process.route_all(event)
    await process.stored()
    note = ids.notification_id(event.id, "u1")

    async def read() -> None:
        (answer,) = await process.store.read("u1", [note])
        assert answer.changed

    if when == "before the loss":
        await read()
    await process.flush()
    if when == "before it is noticed":
        await read()
    await process.store.keeper.look()
    if when == "before the rebuild":
        await read()
    assert await process.rebuilt()
    assert await process.claim() == []
    await process.stored()
    assert await process.statuses(event) == {"CANCELLED": 1}


async def test_a_withdrawn_event_stays_withdrawn(process: Process) -> None:
    event = an_event_of(IN_APP, SMS_LATER)
    await process.accept(event, "u1")
    await process.route_all(event)
    await process.stored()
    await process.store.stops.withdraw([event.id], "", "", 1)
    await process.flush()
    assert await process.rebuilt()
    await process.stored()
    assert await process.statuses(event) == {"CANCELLED": 1}


async def test_which_event_has_a_key_is_remembered_again(process: Process) -> None:
    event = an_event_of(IN_APP).model_copy(update={"event_key": "order:17", "signature": "v1"})
    await process.accept(event, "u1")
    await process.flush()
    assert await process.rebuilt()
    assert await process.client.get("tocsin:key:order:17") == f"{event.id}|v1"


@pytest.mark.parametrize("user", [None, "u1"])
async def test_what_a_filter_stops_stays_stopped_before_all_of_it_is_marked(process: Process, user: str | None) -> None:
    event, unrouted = an_event_of(SMS_NOW), an_event_of(SMS_NOW)
    for each in (event, unrouted):
        await process.accept(each, "u1")
    await process.route_all(event)
    wanted = Wanted(type=event.type, user=user)
    asked = Cancellation(uuid4(), 1, "ops", "c1", "wrong", wanted, place="rows" if user else "unfinished")
    await process.store.stops.begin(asked)
    await process.stored()
    await process.flush()
    assert await process.rebuilt()
    await process.route_all(unrouted)
    assert await process.claim() == []
    await process.stored()
    for each in (event, unrouted):
        assert await process.statuses(each) == {"CANCELLED": 1}


async def test_an_event_goes_on_with_those_whose_notifications_were_not_stored(process: Process) -> None:
    event = an_event_of(SMS_NOW, count=250)
    await process.accept(event, *[f"u{n}" for n in range(250)])
    await fan_out(process.store, str(event.id))
    await route(process.store, str(event.id), 1)
    await process.stored()
    await process.flush()
    assert await process.rebuilt()
    await process.route_all(event)
    await process.stored()
    audit = await process.store.postgres.call(event_audit, event.id)
    assert audit is not None
    assert (audit.row.status, audit.row.expected, audit.counts.notifications) == ("COMPLETED", 250, 250)
    claims = [claim for _ in range(3) for claim in await process.claim()]
    assert sorted(claim.user for claim in claims) == sorted(f"u{n}" for n in range(250))
    assert {claim.attempt for claim in claims} == {1}


async def test_a_notification_that_was_sent_and_whose_making_was_not_stored_is_not_sent_again(process: Process) -> None:
    event = an_event_of(SMS_NOW, count=2)
    await process.accept(event, "u1", "u2")
    await process.route_all(event)
    claims = await process.begun()
    first = next(claim for claim in claims if claim.user == "u1")
    await process.store.attempts.record([Ending(first, Status.SENT, {"provider": "p"})])
    await process.flush()
    assert await process.rebuilt()
    await process.route_all(event)
    assert await process.claim(resend=True) == []
    (second,) = [claim for claim in claims if claim.user == "u2"]
    await process.store.attempts.record([Ending(second, Status.SENT, {"provider": "p"})])
    await process.stored()
    assert await process.statuses(event) == {"SENT": 2}
    assert not await process.client.keys("tocsin:flight:*")


async def test_people_that_were_looked_up_before_a_rebuild_are_not_routed_after_it(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chunk of the same number may be of other people by then, who would never be told."""
    store, users = process.store, [f"u{number}" for number in range(350)]
    event = an_event(SMS_NOW, recipient_count=350)
    await store.accept(event, people(*users), None)
    await fan_out(store, str(event.id))
    look_up = store.people.contacts_of

    async def slowly(*wanted: Any) -> dict[str, Contact]:
        """Meanwhile another process routes them, and Redis is emptied and rebuilt."""
        monkeypatch.setattr(store.people, "contacts_of", look_up)
        found = await look_up(*wanted)
        await route(store, str(event.id), 1)
        await process.stored()
        await process.flush()
        assert await process.rebuilt()
        await fan_out(store, str(event.id))
        return found

    monkeypatch.setattr(store.people, "contacts_of", slowly)
    await route(store, str(event.id), 1)
    await route(store, str(event.id), 1)
    claims = [claim for _ in range(4) for claim in await process.claim()]
    assert sorted(claim.user for claim in claims) == sorted(users)
