"""Redis nearly full and full: one kind of work after another stops, none is half done, and it goes on by itself."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from prometheus_client import CollectorRegistry

from tests.program import Program, client, environment, posted, running
from tests.program import eventually as in_time
from tests.scenes import an_event, chunk_of, people, progress_of, route_chunk, routed, routing
from tests.served import EVENT
from tests.stored import ask
from tests.test_lanes import Carrier
from tests.workbench import eventually
from tocsin.actors.escalation import escalate
from tocsin.actors.fan_out import fan_out
from tocsin.actors.jobs import Jobs
from tocsin.actors.metrics import SendCounters
from tocsin.actors.outcomes import SendRules
from tocsin.actors.persist import Persister
from tocsin.actors.route import route
from tocsin.actors.send import Lane
from tocsin.channels.sandbox.sandbox import Sandbox
from tocsin.domain.delivery import Channel, Status
from tocsin.domain.errors import Overloaded, SettingError
from tocsin.domain.plan import Step
from tocsin.domain.retry import RetryRule
from tocsin.domain.settings import load
from tocsin.storage.flight_parts import Claim, Ending
from tocsin.storage.memory import Work
from tocsin.storage.postgres import Postgres
from tocsin.storage.store import Store

pytestmark = pytest.mark.servers

SMS_NOW = Step(Channel.SMS, 0)
LEASE_MS = 60_000
USERS = [f"u{n}" for n in range(30)]


@pytest.fixture
async def store(redis_url: str, postgres_url: str) -> AsyncIterator[Store]:
    made = await opened(redis_url, postgres_url)
    yield made
    await made._client.config_set("maxmemory", "0")
    await made.close()
    await made.postgres.close()


async def opened(redis_url: str, postgres_url: str, **more: Any) -> Store:
    settings = load({}).with_values({"postgres.url": postgres_url, "redis.url": redis_url, **more})
    return await Store.open(settings, Postgres(settings.postgres))


@contextmanager
def full(redis_url: str) -> Iterator[None]:
    """A Redis that takes nothing more."""
    with redis.Redis.from_url(redis_url) as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "1")
        try:
            yield
        finally:
            client.config_set("maxmemory", "0")


def content(redis_url: str) -> dict[bytes, Any]:
    """Everything that Redis holds. The fields of a large hash come in an order that changes by itself."""
    with redis.Redis.from_url(redis_url) as client:
        return {
            name: client.hgetall(name) if client.type(name) == b"hash" else client.dump(name)
            for name in client.scan_iter()
        }


async def claimed(store: Store, token: str, most: int) -> list[Claim]:
    return await store.attempts.claim(Channel.SMS, token, most, lease_ms=LEASE_MS, attempts=3, resend=True)


def lane(store: Store, carrier: Carrier) -> Lane:
    rules = SendRules(RetryRule(attempts=3, base_ms=1, cap_ms=1, jitter=0.0), LEASE_MS, resend_unknown=False)
    return Lane(store, carrier, rules, SendCounters(CollectorRegistry()))


async def statuses(store: Store) -> list[str]:
    def look() -> list[str]:
        return [status for (status,) in ask("SELECT status FROM deliveries ORDER BY id")]

    return await store.postgres.call(look)


async def test_a_script_that_redis_has_no_room_for_has_changed_nothing(store: Store, redis_url: str) -> None:
    """Whatever it does first is refused, or all of it is done: no script leaves half a change."""
    flights = store.flights
    old, new, paged, planned = (an_event(SMS_NOW, Step(Channel.EMAIL, 1)) for _ in range(4))
    await routed(flights, old, *USERS)
    claims = await claimed(store, "begun", 2)
    for event in (paged, planned):
        await flights.accept(event, people(*USERS), None)
    page = await flights.take_page(planned, "0")
    assert page.chunk == 0
    calls: Sequence[Callable[[], Awaitable[Any]]] = (
        lambda: flights.accept(new, people("u1"), {"f": "accepted"}),
        lambda: flights.take_page(paged, "0"),
        lambda: route_chunk(flights, planned, 0, [routing(planned, user) for user in USERS]),
        lambda: flights.escalate([Channel.SMS]),
        lambda: claimed(store, "another", 5),
        lambda: store.attempts.begin(claims, "begun", lease_ms=LEASE_MS, detail={}),
        lambda: store.calls.put("route", "route", "x"),
    )
    before = content(redis_url)
    with full(redis_url):
        for call in calls:
            with pytest.raises(Overloaded):
                await call()
            assert content(redis_url) == before
    for call in calls:
        await call()


async def test_what_hands_back_records_and_drains_passes_a_full_redis(store: Store, redis_url: str) -> None:
    event = an_event(SMS_NOW)
    await routed(store.flights, event, *USERS)
    claims = await claimed(store, "t", 4)
    await store.attempts.begin(claims[:2], "t", lease_ms=LEASE_MS, detail={})
    with full(redis_url):
        await store.attempts.record([Ending(claims[0], Status.SENT, {})])
        await store.attempts.release(claims[2:], "t")
        await store.flights.back_off(f"e:{event.id}", event.id, error=None)
        await store.alive("one", ["persist"])
        assert (await store.depths()).actor_processes == 1
        # Nobody has made the journal's group before.
        await Persister(store, "one").drain()
        assert await store.facts.length() == 0
    assert sorted(await statuses(store)) == ["QUEUED"] * 28 + ["SENDING", "SENT"]


async def test_a_full_redis_is_drained_though_a_call_waits_that_nobody_can_take(store: Store, redis_url: str) -> None:
    await store.nudge_persister()
    await routed(store.flights, an_event(SMS_NOW), *USERS)
    jobs = Jobs(store, "one", Persister(store, "one").drain)
    with full(redis_url):
        await jobs._nudge()
        assert await store.facts.length() == 0


async def test_filled_to_the_brim_it_drains_and_goes_on_by_itself(store: Store, redis_url: str) -> None:
    """Sends stop without using up an attempt; once somebody makes room all of them go out, each once."""
    event = an_event(SMS_NOW)
    await store.profiles.keep_inline(event.id, people(*USERS), 600_000)
    await routed(store.flights, event, *USERS)
    sms, persister = lane(store, carrier := Carrier()), Persister(store, "one")
    with full(redis_url):
        store.memory._asked_at = -1.0
        await sms.run()
        with pytest.raises(Overloaded):
            await escalate(store, {})
        with pytest.raises(Overloaded):
            await store.accept(an_event(), people("u1"), None)
        assert carrier.got == []
        await persister.drain()
    assert await statuses(store) == ["QUEUED"] * len(USERS)

    async def all_sent() -> bool:
        store.memory._asked_at = -1.0
        await sms.run()
        return len(carrier.got) == len(USERS)

    await eventually(all_sent)
    await sms.close(2)
    await persister.drain()
    assert await statuses(store) == ["SENT"] * len(USERS)
    assert {(message.user, message.attempt) for message in carrier.got} == {(user, 1) for user in USERS}


async def test_a_claim_that_redis_has_no_room_to_begin_is_handed_back(
    store: Store, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = an_event(SMS_NOW)
    await store.profiles.keep_inline(event.id, people("u1"), 600_000)
    await routed(store.flights, event, "u1")
    begin = store.attempts.begin

    async def without_room(*claims: Any, **rules: Any) -> list[bool]:
        with full(redis_url):
            return await begin(*claims, **rules)

    sms = lane(store, carrier := Carrier())
    with monkeypatch.context() as patch:
        patch.setattr(store.attempts, "begin", without_room)
        await sms.run()
        await sms.close(2)
    assert carrier.got == []
    (claim,) = await eventually(lambda: claimed(store, "t", 1))
    assert claim.attempt == 1


async def test_accepting_stops_first_then_planning_then_sending(redis_url: str, postgres_url: str) -> None:
    stopped: list[list[Work]] = []
    for share in (0.7, 0.78, 0.85, 0.95):
        store = await opened(redis_url, postgres_url)
        await store._client.set(store._keys.facts_bytes, 1)
        used = (await store._client.info("memory"))["used_memory"]
        await store.close()
        await store.postgres.close()
        store = await opened(redis_url, postgres_url, **{"redis.max_memory": f"{int(used / share)}B"})
        stopped.append([work for work in Work if await is_stopped(store, work)])
        await store.close()
        await store.postgres.close()
    assert stopped == [[], [Work.ACCEPT], [Work.ACCEPT, Work.PLAN], [Work.ACCEPT, Work.PLAN, Work.SEND]]


async def test_sends_go_on_where_only_they_can_make_room(store: Store) -> None:
    """Nothing waits to be drained: past its mark memory falls as deliveries end, and not before."""
    store.memory._used_share, store.memory._asked_at = 0.95, float("inf")
    assert [work for work in Work if await is_stopped(store, work)] == [Work.ACCEPT, Work.PLAN]
    store.memory._journal_bytes = 1
    assert await is_stopped(store, Work.SEND)


async def is_stopped(store: Store, work: Work) -> bool:
    try:
        await store.memory.check(work)
    except Overloaded:
        return True
    return False


async def test_recipients_wait_for_room_and_are_planned_by_themselves(store: Store, redis_url: str) -> None:
    everybody = [f"u{number}" for number in range(230)]  # more than fan-out routes by itself
    event = an_event(SMS_NOW, recipient_count=len(everybody))
    await store.flights.accept(event, people(*everybody), None)
    store.memory._used_share, store.memory._asked_at = 0.85, float("inf")
    await fan_out(store, str(event.id))
    assert (await progress_of(store.flights, event)).cursor == "0"
    store.memory._used_share = 0.7
    await fan_out(store, str(event.id))
    store.memory._used_share = 0.85
    await route(store, str(event.id), 1)
    assert len(await chunk_of(store.flights, event, 1)) == 100
    assert await store._client.zscore(store._keys.due, f"c:{event.id}:1")
    store.memory._used_share = 0.7
    await route(store, str(event.id), 1)
    assert await chunk_of(store.flights, event, 1) == []


def test_the_shares_must_lie_in_their_order() -> None:
    with pytest.raises(SettingError, match="plan_memory_share"):
        load({}).with_values({"redis.plan_memory_share": 0.5})


def has_sent(sandbox: Sandbox, count: int, actors: Program) -> bool:
    sent = len(sandbox.outbox.entries())
    assert sent == count, f"{sent} of {count} are sent; the actors say:\n{actors.log.read_text()[-4000:]}"
    return True


@pytest.mark.processes
def test_processes_at_the_memory_limit_lose_nothing_and_go_on_when_there_is_room(
    redis_url: str, postgres_url: str, tmp_path: Path
) -> None:
    sandbox = Sandbox()
    sandbox.start()
    environ = environment(sandbox, redis_url, postgres_url)
    http, actors = Program(tmp_path, "http", environ=environ), Program(tmp_path, "actors", environ=environ)
    everybody = [{"id": user, "email": f"{user}@example.org"} for user in USERS]
    event = {
        "title": "Approved",
        "recipients": everybody,
        "channels": ["EMAIL", "IN_APP"],
        "notificationPriority": "HIGH",
    }
    with running(http, actors), client(http.url) as api:
        answers = Counter[int]()

        def is_answered(status: int) -> bool:
            answers[last := api.post("/api/notifications", json=EVENT | event).status_code] += 1
            return last == status

        posted(api, **event)
        with full(redis_url):
            # Until it is asked again how full Redis is, events are taken.
            in_time(lambda: is_answered(503))
            in_time(lambda: "waits: Redis" in actors.log.read_text())
        in_time(lambda: is_answered(202))
        taken = 1 + answers[202]
        in_time(lambda: has_sent(sandbox, taken * len(USERS), actors))
        in_time(lambda: api.get("/ready").json()["status"] == "READY")
        assert [program.stop() for program in (actors, http)] == [0, 0]
    assert set(Counter(entry.to for entry in sandbox.outbox.entries()).values()) == {taken}
    sandbox.stop()
