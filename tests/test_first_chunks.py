"""Events that are accepted together are called together, and begun in a few trips for all of them; none of them suffers
for another."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from loguru import logger

from tests.scenes import an_event, chunk_of, people
from tests.workbench import eventually, store_without_postgres
from tocsin.actors import outages
from tocsin.actors.fan_out import fan_out
from tocsin.actors.route import route
from tocsin.domain.audience import Audience
from tocsin.domain.delivery import Channel
from tocsin.domain.event import Contact, Event, Recipient
from tocsin.domain.plan import Step
from tocsin.storage.accepted import Accepted
from tocsin.storage.people import People
from tocsin.storage.routed import parts
from tocsin.storage.scripts import text_of
from tocsin.storage.store import Store

SMS_NOW = Step(Channel.SMS, 0)
ASHA = Contact(id="asha", phone="+14155550111")


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    """A store on fakeredis whose Postgres does not answer."""
    async with store_without_postgres() as made:
        await made.profiles.keep([ASHA])
        yield made


async def accepted(store: Store, *recipients: Recipient) -> Event:
    event = an_event(SMS_NOW, recipient_count=len(recipients))
    await store.flights.accept(event, recipients, None)
    return event


async def steps_of(store: Store, event: Event) -> dict[str, str]:
    """What each person's SMS came to: "QUEUED", or why not."""
    client: Any = store._client
    told: dict[str, str] = {}
    for _, fields in await client.xrange("tocsin:facts"):
        for fact in json.loads(fields["d"]):
            if fact["f"] == "routed" and fact["e"] == str(event.id):
                courses, notes = parts(fact)
                last = [steps[-1] for _, steps in courses]
                told |= {user: last[course][3] or last[course][2] for _, user, course, *_ in notes}
    return told


async def calls(store: Store, queue: str) -> list[list[Any]]:
    client: Any = store._client
    messages = await client.hvals(f"tocsin:dramatiq:{queue}.msgs")
    return [json.loads(message)["args"] for message in messages]


async def test_events_that_are_accepted_together_are_called_together(store: Store) -> None:
    """So few that other processes get some too, and about as many people as one chunk has."""
    groups = [20, 5, 1, 1]
    rows = [Accepted(an_event(SMS_NOW), people("asha"), None) for _ in range(25)]
    names = [f"u{number}" for number in range(99)]
    rows += [Accepted(an_event(SMS_NOW, recipient_count=99), people(*names), None) for _ in range(2)]
    await store._entrance.enter(rows)
    called = await calls(store, "fan_out")
    assert sorted(map(len, called)) == sorted(groups)
    assert [event for some in called for event in some] == [str(row.event.id) for row in rows]


async def test_an_event_with_an_audience_is_called_alone(store: Store) -> None:
    """It may be anybody's guess how many people that is, so other processes are to get the next one."""
    crowd = {"audience": Audience(everyone=True), "recipient_count": None}
    rows = [Accepted(an_event(SMS_NOW), people("asha"), None) for _ in range(2)]
    rows += [Accepted(an_event(SMS_NOW, **crowd), [], None) for _ in range(2)]
    await store._entrance.enter(rows)
    assert sorted(map(len, await calls(store, "fan_out"))) == [1, 1, 2]


async def test_events_are_begun_together_and_each_says_what_it_says_alone(store: Store) -> None:
    events = [await accepted(store, *people("asha")) for _ in range(3)]
    await fan_out(store, *(str(event.id) for event in events))
    for event in events:
        assert await steps_of(store, event) == {"asha": "QUEUED"}
    assert await calls(store, "send_sms") == [[]]
    assert len(await calls(store, "persist")) == 1


async def test_an_event_that_is_begun_twice_tells_nobody_twice(store: Store) -> None:
    event = await accepted(store, *people("asha"))
    await fan_out(store, str(event.id), str(event.id))
    await fan_out(store, str(event.id))
    await store.flights.escalate([Channel.SMS])
    claims = await store.attempts.claim(Channel.SMS, "t", 100, lease_ms=60_000, attempts=3, resend=False)
    assert [claim.user for claim in claims] == ["asha"]


async def test_a_large_event_goes_on_behind_its_first_people(store: Store) -> None:
    names = [f"u{number}" for number in range(150)]
    small, large = await accepted(store, *people("asha")), await accepted(store, *people(*names))
    await store.profiles.keep([Contact(id=name, phone="+14155550112") for name in names])
    await fan_out(store, str(large.id), str(small.id))
    assert len(await steps_of(store, large)) == 100
    assert await calls(store, "route") == [[str(large.id), 1]]
    assert await steps_of(store, small) == {"asha": "QUEUED"}


async def test_whom_postgres_alone_knows_holds_up_only_their_own_event(store: Store) -> None:
    known, unknown = await accepted(store, *people("asha")), await accepted(store, Recipient(id="rao"))
    await fan_out(store, str(unknown.id), str(known.id))
    assert await steps_of(store, known) == {"asha": "QUEUED"}
    assert await chunk_of(store.flights, unknown, 0) == ["rao"]
    await store.profiles.keep([Contact(id="rao")])
    await route(store, str(unknown.id), 0)
    assert await steps_of(store, unknown) == {"rao": "no_address"}


async def test_whom_redis_knows_does_not_wait_for_what_postgres_says_of_others(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = asyncio.Event()

    async def slowly(*_: Any) -> dict[str, Contact]:
        await answered.wait()
        return {}

    async def is_routed() -> bool:
        return await steps_of(store, known) == {"asha": "QUEUED"}

    monkeypatch.setattr(People, "_stored", slowly)
    known, unknown = await accepted(store, *people("asha")), await accepted(store, *people("rao"))
    fanning = asyncio.create_task(fan_out(store, str(unknown.id), str(known.id)))
    try:
        await eventually(is_routed)
        assert await steps_of(store, unknown) == {}
    finally:
        answered.set()
        await fanning
    assert await steps_of(store, unknown) == {"rao": "QUEUED"}


async def test_nothing_is_said_to_wait_for_postgres_where_everybody_is_judged_without_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outages, "_said", {})
    events = [await accepted(store, *people("rao")) for _ in range(2)]
    said: list[str] = []
    sink = logger.add(lambda message: said.append(message.record["message"]), level="WARNING")
    try:
        await fan_out(store, *(str(event.id) for event in events))
    finally:
        logger.remove(sink)
    assert [await steps_of(store, event) for event in events] == [{"rao": "QUEUED"}] * 2
    assert [line for line in said if "waits" in line] == []


async def test_an_event_whose_chunks_are_counted_on_after_a_replay_is_routed_at_once(store: Store) -> None:
    again, good = await accepted(store, *people("asha")), await accepted(store, *people("asha"))
    client: Any = store._client
    await client.hset(f"tocsin:event:{again.id}", mapping={"chunks": 3, "routed": 3})  # as reenter.lua leaves it
    await fan_out(store, str(again.id), str(good.id))
    assert [await steps_of(store, event) for event in (again, good)] == [{"asha": "QUEUED"}] * 2


async def test_a_redis_that_knows_some_of_the_scripts_has_no_event_wait(store: Store) -> None:
    """As after a start: whoever goes on with a large event has told it the one and not the other."""
    events = [await accepted(store, *people("asha")) for _ in range(3)]
    client: Any = store._client
    await client.script_flush()
    await client.script_load(text_of("fan_out"))
    await fan_out(store, *(str(event.id) for event in events))
    assert [await steps_of(store, event) for event in events] == [{"asha": "QUEUED"}] * 3


async def test_who_is_given_inline_for_one_event_is_unknown_to_another(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nobody(*_: Any) -> dict[str, Contact]:
        return {}

    monkeypatch.setattr(People, "_stored", nobody)
    events = [await accepted(store, each) for each in (*people("rao"), Recipient(id="rao"))]
    await fan_out(store, *(str(event.id) for event in events))
    assert [await steps_of(store, event) for event in events] == [{"rao": "QUEUED"}, {"rao": "unknown_user"}]


@pytest.mark.parametrize("spoilt", ["content", "recipients"])
async def test_an_event_that_cannot_be_read_holds_up_no_other(store: Store, spoilt: str) -> None:
    bad, good = await accepted(store, *people("asha")), await accepted(store, *people("asha"))
    client: Any = store._client
    if spoilt == "content":
        await client.hset(f"tocsin:event:{bad.id}", "content", "{}")
    else:
        await client.lset(f"tocsin:recipients:{bad.id}", 0, "{}")
    await fan_out(store, str(bad.id), str(good.id))
    assert await steps_of(store, good) == {"asha": "QUEUED"}
    assert await steps_of(store, bad) == {}
    assert await client.hget(f"tocsin:event:{bad.id}", f"failures:c:{bad.id}:0") == "1"


async def test_a_plan_that_fails_holds_up_no_other(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = await accepted(store, *people("asha")), await accepted(store, *people("asha"))
    routing = store.flights.routing

    def failing(event: Event, *given: Any) -> Any:
        if event.id == bad.id:
            raise KeyError("defect")
        return routing(event, *given)

    monkeypatch.setattr(store.flights, "routing", failing)
    await fan_out(store, str(bad.id), str(good.id))
    assert await steps_of(store, good) == {"asha": "QUEUED"}
    client: Any = store._client
    assert await client.hget(f"tocsin:event:{bad.id}", f"failures:c:{bad.id}:0") == "1"


async def test_what_fails_for_all_together_is_begun_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing(*_: Any) -> Any:
        raise RuntimeError("defect")

    monkeypatch.setattr(store.first_chunks, "make", failing)
    events = [await accepted(store, *people("asha")) for _ in range(2)]
    await fan_out(store, *(str(event.id) for event in events))
    assert sorted(await calls(store, "route")) == sorted([str(event.id), 0] for event in events)


@pytest.mark.parametrize("step", ["make", "route"])
async def test_a_loss_of_redis_is_noticed_wherever_it_comes_between(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    work = getattr(store.first_chunks, step)

    async def lost_before(*given: Any) -> Any:
        store.life.adopt("another", 0)
        return await work(*given)

    monkeypatch.setattr(store.first_chunks, step, lost_before)
    events = [await accepted(store, *people("asha")) for _ in range(2)]
    await fan_out(store, *(str(event.id) for event in events))
    assert store.life._doubts.is_set()
    assert [await steps_of(store, event) for event in events] == [{}, {}]
