"""Events that are accepted together are called together, and begun in a few trips for all of them; none of them suffers
for another."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.scenes import an_event, chunk_of, people
from tests.workbench import store_without_postgres
from tocsin.actors.fan_out import fan_out
from tocsin.actors.route import route
from tocsin.domain.delivery import Channel
from tocsin.domain.event import Contact, Event, Recipient
from tocsin.domain.plan import Step
from tocsin.storage.accepted import Accepted
from tocsin.storage.people import People
from tocsin.storage.routed import parts
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
