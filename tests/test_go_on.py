"""A large event is gone on with in turns, by who walks through its people and routes them too."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.scenes import an_event, people
from tests.test_audience_goes_on import is_complete, known, posted, reached
from tests.test_rebuild import IN_APP, SMS_NOW, Process, opened
from tests.workbench import eventually
from tocsin.actors import fan_out as fanning
from tocsin.actors import go_on as going
from tocsin.actors import queues, walk
from tocsin.actors.fan_out import fan_out
from tocsin.actors.go_on import go_on
from tocsin.actors.route import route
from tocsin.domain.errors import RedisAway
from tocsin.domain.event import Event
from tocsin.storage import flights as flights_module

pytestmark = pytest.mark.servers


@pytest.fixture
async def process(redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Process]:
    """Pages are small, and so is what is done of an event before it counts as large."""
    monkeypatch.setattr(walk, "PAGE", 200)
    monkeypatch.setattr(fanning, "MOST_PAGES", 1)
    async for made in opened(redis_url, postgres_url):
        yield made


async def calls(process: Process, queue: str) -> list[list[Any]]:
    """What the calls that wait in a queue are given, in their order."""
    name = f"tocsin:dramatiq:{queue}"
    waiting = await process.client.lrange(name, 0, -1)
    messages = await process.client.hmget(name + ".msgs", waiting) if waiting else []
    return [json.loads(message)["args"] for message in messages]


async def take_call(process: Process, queue: str) -> list[Any]:
    """The call that is next."""
    (arguments,) = (await calls(process, queue))[:1]
    await process.client.lpop(f"tocsin:dramatiq:{queue}")
    return arguments


async def carry(process: Process) -> int:
    """What a process does until no call is left; answers how many calls of go_on that were."""
    count = 0
    while await calls(process, "go_on"):
        await go_on(process.store, *await take_call(process, "go_on"))
        count += 1
        while await calls(process, "route"):
            await route(process.store, *await take_call(process, "route"))
    await process.stored()
    return count


async def test_a_small_event_does_not_wait_behind_a_large_one(process: Process) -> None:
    """Where events are fanned out, only the first people of a large one are."""
    names = await known(process, 450)
    large = await posted(process, SMS_NOW)
    await fan_out(process.store, str(large.id))
    assert await calls(process, "route") == [[str(large.id), 0]]
    assert await calls(process, "go_on") == [[str(large.id), f"@{names[99]}"]]
    assert queues.GO_ON in queues.worked_on(queues.ALL)
    assert queues.GO_ON not in queues.worked_on(["route"])


@pytest.mark.parametrize("others", [0, 2])
async def test_who_walks_routes_and_hands_over_what_others_take(
    process: Process, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    """As many chunks wait for other processes as there are of them."""
    monkeypatch.setattr(going, "_TURN_S", 60.0)

    async def is_busy(*given: Any) -> None:
        await eventually(lambda: waits(process, others))
        await route(*given)

    monkeypatch.setattr(going, "route", is_busy)
    for number in range(1 + others):
        await process.store.alive(f"process {number}", [])
    await known(process, 1_950)
    event = await posted(process, IN_APP, named=("guest",))
    await fan_out(process.store, str(event.id))
    await route(process.store, *await take_call(process, "route"))
    await go_on(process.store, *await take_call(process, "go_on"))
    assert await calls(process, "go_on") == []
    assert len(await process.client.keys("tocsin:chunk:*")) == others
    for _ in range(others):
        await route(process.store, *await take_call(process, "route"))
    await process.stored()
    assert await is_complete(process, event, 1_951)


async def waits(process: Process, chunks: int) -> bool:
    """Whether so many are to be routed by others."""
    return len(await calls(process, "route")) == chunks


async def test_large_events_take_turns(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn ends with a page of the audience."""
    monkeypatch.setattr(going, "_TURN_S", 0.0)
    await known(process, 750)
    events = [await posted(process, IN_APP) for _ in range(2)]
    for event in events:
        await fan_out(process.store, str(event.id))
    turns = []
    while await calls(process, "go_on"):
        event_id, cursor = await take_call(process, "go_on")
        turns.append(event_id)
        await go_on(process.store, event_id, cursor)
    assert turns == [str(event.id) for event in events] * 4
    while await calls(process, "route"):
        await route(process.store, *await take_call(process, "route"))
    await process.stored()
    assert all([await is_complete(process, event, 750) for event in events])


async def test_of_any_number_of_calls_for_an_event_one_goes_on(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock calls again for what waits long; calls would else become more with each turn."""
    monkeypatch.setattr(going, "_TURN_S", 0.0)
    names = await known(process, 950)
    event = await posted(process, IN_APP)
    await fan_out(process.store, str(event.id))
    for _ in range(3):
        await fan_out(process.store, str(event.id))
    assert len(await calls(process, "go_on")) == 4
    assert await carry(process) == 3 + 3
    assert await reached(process, event) == names
    assert await is_complete(process, event, 950)


async def test_a_walk_that_finds_no_room_is_called_by_who_makes_some(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flights_module, "_MOST_OPEN_CHUNKS", 2)
    await known(process, 650)
    event = await posted(process, IN_APP)
    await fan_out(process.store, str(event.id))
    await fan_out(process.store, str(event.id))
    await process.client.delete("tocsin:dramatiq:go_on")
    await go_on(process.store, str(event.id), "")
    assert await calls(process, "go_on") == []
    await route(process.store, str(event.id), 0)
    assert await calls(process, "go_on") == [[str(event.id), ""]]
    await carry(process)
    assert await is_complete(process, event, 650)


async def test_an_event_is_gone_on_with_after_any_number_of_deaths(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those who are named and of an audience; what was called is lost with the process."""
    names = await known(process, 850)
    guests = [f"guest{number}" for number in range(250)]
    event = await posted(process, IN_APP, named=(*guests, names[7]))
    chance, flights = random.Random(7), process.store.flights

    def dies_now_and_then(name: str) -> None:
        work = getattr(flights, name)

        async def may_die(*given: Any, **more: Any) -> Any:
            if chance.random() < 0.15:
                raise RedisAway("killed before")
            answer = await work(*given, **more)
            if chance.random() < 0.15:
                raise RedisAway("killed after")
            return answer

        monkeypatch.setattr(flights, name, may_die)

    dies_now_and_then("take_page")
    dies_now_and_then("route")
    for _ in range(12):
        await fan_out(process.store, str(event.id))
        await go_on(process.store, str(event.id), "")
        await process.client.delete("tocsin:dramatiq:go_on", "tocsin:dramatiq:route")
    monkeypatch.undo()
    await everything(process, event)
    assert await reached(process, event) == sorted([*names, *guests])
    assert await is_complete(process, event, 1_100)


async def everything(process: Process, event: Event) -> None:
    """What the clock calls, until nothing is left."""
    while entries := await process.client.zrange("tocsin:due", 0, -1):
        for entry in entries:
            kind, identifier, *number = entry.split(":")
            if kind == "e":
                await go_on(process.store, identifier, "")
            else:
                await route(process.store, identifier, int(number[0]))
    await process.stored()


async def test_two_walks_at_once_reach_everybody_once(process: Process, redis_url: str, postgres_url: str) -> None:
    names = await known(process, 900)
    event = await posted(process, IN_APP)
    async for other in opened(redis_url, postgres_url):
        await asyncio.gather(*(go_on(each.store, str(event.id), "") for each in (process, other, process)))
    await everything(process, event)
    assert await reached(process, event) == names
    assert await is_complete(process, event, 900)


async def test_the_named_alone_are_gone_on_with_too(process: Process) -> None:
    names = [f"u{number:04d}" for number in range(730)]
    event = an_event(IN_APP, recipient_count=len(names))
    await process.store.accept(event, people(*names), None)
    await fan_out(process.store, str(event.id))
    await route(process.store, *await take_call(process, "route"))
    await carry(process)
    assert await reached(process, event) == names
    assert await is_complete(process, event, 730)
