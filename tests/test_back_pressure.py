"""Postgres slow or away: the journal grows to its marks and no further; nothing is lost and all of it goes on by
itself. And what of Redis is left when an event is all over."""

from collections.abc import AsyncIterator, Callable

import pytest
from prometheus_client import CollectorRegistry

from tests.scenes import an_event, people
from tests.served import SETTINGS, serving
from tests.test_flights import Bench, eventually
from tests.test_lanes import Carrier, lane, store  # noqa: F401  # a fixture among them
from tests.test_memory import is_stopped, opened
from tocsin.actors.fan_out import fan_out
from tocsin.actors.metrics import Gauges
from tocsin.actors.persist import Persister
from tocsin.actors.route import route
from tocsin.cli.check_redis import judge_journal
from tocsin.cli.findings import Level
from tocsin.domain.delivery import Channel
from tocsin.domain.errors import Overloaded, SettingError
from tocsin.domain.plan import Step
from tocsin.domain.settings import Settings, load
from tocsin.storage.memory import Work
from tocsin.storage.store import Store

IN_APP_AND_SMS = (Step(Channel.IN_APP, 0), Step(Channel.SMS, 0))
USERS = [f"u{n}" for n in range(250)]


async def held(bench: Bench) -> int:
    return int(await bench.client.get(bench.keys.facts_bytes) or 0)


async def really_held(bench: Bench) -> int:
    return sum(len(fields["d"].encode()) for _, fields in await bench.client.xrange(bench.keys.facts))


async def test_the_size_of_the_journal_is_known_to_the_byte(bench: Bench) -> None:
    for name in ("Ann", "José", "Δίκη"):
        await bench.flights.accept(an_event(), people("u1"), {"f": "accepted", "name": name})
    assert await held(bench) == await really_held(bench) > 0
    taken = [identifier for identifier, _ in await bench.journal.take("one", 2)]
    await bench.journal.done(taken[:1])
    await bench.journal.done(taken[:1])
    assert await held(bench) == await really_held(bench) > 0
    # Whoever ends another's entries does not know their size.
    everything = [identifier for identifier, _ in await bench.client.xrange(bench.keys.facts)]
    bench.journal._sizes.clear()
    await bench.journal.done(everything[:1])
    assert await held(bench) == await really_held(bench) > 0
    await bench.journal.done(everything)
    assert not await bench.client.exists(bench.keys.facts_bytes)


async def test_planning_stops_first_then_accepting_then_sending(store: Store) -> None:  # noqa: F811
    marks = store.settings.redis
    stopped = []
    for size in (0, marks.plan_journal, marks.max_journal, 2 * marks.max_journal):
        await store._client.set(store._keys.facts_bytes, size)
        store.memory._asked_at = -1.0
        stopped.append([work for work in Work if await is_stopped(store, work)])
    assert stopped == [[], [Work.PLAN], [Work.ACCEPT, Work.PLAN], [Work.ACCEPT, Work.PLAN, Work.SEND]]


async def test_the_figures_and_the_doctor_say_what_waits_and_for_what(store: Store) -> None:  # noqa: F811
    await store._client.set(store._keys.facts_bytes, 600_000_000)
    registry = CollectorRegistry()
    await Gauges(registry, {}).refresh(store)
    value = registry.get_sample_value
    assert value("tocsin_facts_bytes") == 600_000_000
    works = {work: value("tocsin_work_stopped", {"work": work}) for work in ("accept", "plan", "send")}
    assert works == {"accept": 0, "plan": 1, "send": 0}
    marks = store.settings.redis
    told = [judge_journal(size, marks) for size in (1_000_000, marks.plan_journal, marks.max_journal)]
    assert [each.level for each in told] == [Level.OK, Level.WARN, Level.WARN]
    assert "not planned" in told[1].told
    assert "nothing new is accepted" in told[2].told


def test_the_marks_must_lie_in_their_order() -> None:
    with pytest.raises(SettingError, match="plan_journal"):
        load({}).with_values({"redis.max_journal": "1MB"})


@pytest.mark.servers
async def test_with_postgres_away_redis_fills_to_the_mark_and_everything_is_stored_afterwards(
    redis_url: str, postgres_url: str
) -> None:
    """A crowd is planned page by page until the journal is at its mark; then nothing new is planned, and past the next
    one nothing accepted. As soon as Postgres hears of it all of that goes on."""
    marks = {"redis.plan_journal": "10KB", "redis.max_journal": "25KB"}
    made = await opened(redis_url, postgres_url, **marks)
    event = an_event(*IN_APP_AND_SMS, recipient_count=len(USERS))
    await made.accept(event, people(*USERS), None)
    persister = Persister(made, "one")

    async def plan() -> None:
        made.memory._asked_at = -1.0
        await fan_out(made, str(event.id))
        for chunk in range(3):
            made.memory._asked_at = -1.0
            await route(made, str(event.id), chunk)

    for _ in range(3):
        await plan()
    longest = (await made.depths()).facts_bytes
    assert 10_000 <= longest < 25_000
    assert await made._client.exists(made._keys.chunk(event.id, 2))
    await made._client.incrby(made._keys.facts_bytes, 25_000)
    made.memory._asked_at = -1.0
    with pytest.raises(Overloaded) as refused:
        await made.accept(an_event(), people("u1"), None)
    assert refused.value.retry_after_s
    await made._client.decrby(made._keys.facts_bytes, 25_000)

    async def planned() -> bool:
        await persister.drain()
        await plan()
        return not await made._client.exists(made._keys.recipients(event.id)) and (await made.depths()).due == 0

    await eventually(planned, 20)
    await persister.drain()
    stored = await made.postgres.call(lambda: _count("select count(*) from notifications"))
    assert stored == len(USERS)
    assert (await made.depths()).facts_bytes == 0
    await made.close()
    await made.postgres.close()


def _count(statement: str) -> int:
    from tests.stored import ask

    ((count,),) = ask(statement)
    return int(count)


@pytest.mark.servers
async def test_ready_says_what_waits_until_the_journal_is_stored(
    settings: Callable[..., Settings], redis_url: str, postgres_url: str
) -> None:
    async with serving(settings(SETTINGS), redis_url, postgres_url) as served:
        store = served.store
        await store._client.set(store._keys.facts_bytes, store.settings.redis.max_journal)
        store.memory._asked_at = -1.0
        ready = (await served.client().get("/ready")).json()
        assert ready["status"] == "DEGRADED"
        assert "no new events are taken past" in ready["parts"]["redis"]
        refused = await served.api.post(
            "/api/notifications",
            json={"type": "event.approval", "message": "Yes", "recipients": [{"id": "u1", "email": "a@example.org"}]},
        )
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0


# What is left.

KEPT = {"last_fact", "epoch", "installation", "people_mirrored", "dramatiq", "processes", "queues", "facts"}
"""What Redis always has, by the name after the namespace; the journal and the calls are empty."""
FOR_A_WHILE = {"event", "contacts", "profile", "claim", "taken", "read", "cancelled", "known", "once", "lock"}
"""What goes away by itself."""


async def left(store: Store) -> dict[str, int]:  # noqa: F811
    """The keys that Redis has, with the time that each will stay (-1: always)."""
    names = sorted(await store._client.keys("*"))
    return {name: await store._client.pttl(name) for name in names}


@pytest.fixture
async def made(redis_url: str, postgres_url: str) -> AsyncIterator[Store]:
    opening = await opened(redis_url, postgres_url)
    await opening.profiles.mirrored_up_to(1)
    yield opening
    await opening.close()
    await opening.postgres.close()


@pytest.mark.servers
async def test_of_an_event_that_is_all_over_nothing_stays_in_redis_for_good(made: Store) -> None:
    """Listed, sent, read, stored: lists, flights, the index, chunks and recipients are gone at once; content, addresses
    and marks go away by themselves."""
    event = an_event(Step(Channel.IN_APP, 0), Step(Channel.SMS, 0), Step(Channel.EMAIL, 3_600_000), recipient_count=120)
    users = USERS[:120]
    persister, sms = Persister(made, "one"), lane(made, carrier := Carrier(concurrency=50))
    await made.accept(event, people(*users), None)
    await fan_out(made, str(event.id))
    for chunk in range(2):
        await route(made, str(event.id), chunk)
    lists = [name for name in await left(made) if name.startswith("notifications:")]
    assert len(lists) == 120
    assert all([0 < await made._client.pttl(name) <= made.settings.cache.ttl for name in lists])

    async def sent() -> bool:
        await sms.run()
        return len(carrier.got) == 120

    await eventually(sent)
    await sms.close(2)
    notes = [(message.user, message.notification) for message in carrier.got]
    for user, note in notes:
        await made.read(user, [note])
    await persister.drain()
    await persister.leave()
    stay = await left(made)
    kinds = {name: name.split(":")[1] if name.startswith("tocsin:") else name for name in stay}
    assert {kind for name, kind in kinds.items() if stay[name] == -1} <= KEPT
    assert {kind for name, kind in kinds.items() if stay[name] != -1} <= FOR_A_WHILE
    assert await made.facts.length() == 0
    day_ms = 86_400_000
    of_the_event = [ttl for name, ttl in stay.items() if str(event.id) in name]
    assert all(0 < ttl <= 3_600_000 + day_ms + 3_600_000 for ttl in of_the_event)


@pytest.mark.servers
async def test_with_the_cache_off_rows_are_written_before_anything_is_shown(redis_url: str, postgres_url: str) -> None:
    """No list has it, nobody is told of it, and no page shows it, until Postgres has committed it."""
    store = await opened(redis_url, postgres_url, **{"cache.enabled": False})  # noqa: F811
    event = an_event(Step(Channel.IN_APP, 0), recipient_count=2)
    told: list[str] = []
    async with store._client.pubsub() as hearing:
        await hearing.psubscribe("tocsin:user:*")
        await store.accept(event, people("u1", "u2"), None)
        await fan_out(store, str(event.id))
        await route(store, str(event.id), 0)
        assert [name for name in await left(store) if name.startswith("notifications:")] == []
        assert (await store.inbox.page("u1", 10)).rows == ()
        assert await store.inbox.unread_count("u1") == 0

        async def heard() -> bool:
            message = await hearing.get_message(ignore_subscribe_messages=True, timeout=0.01)
            if message:
                told.append(message["channel"])
                # Whoever is told finds it.
                assert len((await store.inbox.page(message["channel"].split(":")[-1], 10)).rows) == 1
            return len(told) == 2

        assert not await heard()
        await Persister(store, "one").drain()
        await eventually(heard)
    assert await store.inbox.unread_count("u1") == 1
    assert [name for name in await left(store) if name.startswith("notifications:")] == []
    await store.close()
    await store.postgres.close()
