"""An event in the middle of its audience goes on after a kill, a loss of Redis or a replay: nobody is left out or told
twice."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.scenes import an_event, people, progress_of
from tests.test_rebuild import IN_APP, SMS_LATER, SMS_NOW, Process, opened
from tocsin.actors import walk
from tocsin.actors.fan_out import fan_out
from tocsin.actors.messages import messages_for
from tocsin.actors.route import route
from tocsin.domain.audience import Audience
from tocsin.domain.delivery import Channel, Status
from tocsin.domain.errors import RedisAway
from tocsin.domain.event import Event
from tocsin.domain.plan import Step
from tocsin.storage import flights as flights_module
from tocsin.storage import users
from tocsin.storage.by import By
from tocsin.storage.dead_letters import LetterFilter
from tocsin.storage.event_queries import event_audit
from tocsin.storage.flight_parts import Ending

pytestmark = pytest.mark.servers

EVERYONE = Audience(everyone=True)
SMALL_PAGE = 100


@pytest.fixture
async def process(redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Process]:
    monkeypatch.setattr(walk, "PAGE", SMALL_PAGE)
    async for made in opened(redis_url, postgres_url):
        yield made


@pytest.fixture
async def other(process: Process, redis_url: str, postgres_url: str) -> AsyncIterator[Process]:
    async for made in opened(redis_url, postgres_url):
        yield made


async def known(process: Process, count: int) -> list[str]:
    """So many users, reached by SMS."""
    names = [f"u{number:04d}" for number in range(count)]
    given = [{"id": name, "phone": "+14155550123"} for name in names]
    await process.store.postgres.call(users.import_users, given)
    return names


async def posted(process: Process, *steps: Step, named: tuple[str, ...] = ()) -> Event:
    event = an_event(*steps, recipient_count=None, audience=EVERYONE)
    await process.store.accept(event, people(*named), None)
    return event


async def carry(process: Process, event: Event) -> None:
    """What the actors do until nothing is left, chunks in any order."""
    for _ in range(100):
        await fan_out(process.store, str(event.id))
        chunks = [name async for name in process.client.scan_iter(match=f"tocsin:chunk:{event.id}:*")]
        if not chunks:
            break
        for name in random.Random(4).sample(chunks, len(chunks)):
            await route(process.store, str(event.id), int(name.rpartition(":")[2]))
    await process.stored()


async def reached(process: Process, event: Event) -> list[str]:
    rows = await process.ask("select user_id from notifications where event_id = %s order by user_id", str(event.id))
    return [user for (user,) in rows]


async def is_complete(process: Process, event: Event, expected: int) -> bool:
    audit = await process.store.postgres.call(event_audit, event.id)
    assert audit is not None
    assert (audit.row.status, audit.row.expected) == ("COMPLETED", expected)
    return audit.counts.notifications == expected


async def claimed(process: Process, count: int) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    while claims := await process.claim():
        found += [(claim.user, claim.attempt) for claim in claims]
    assert len(found) == count, len(found)
    return sorted(found)


def few_open(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(flights_module, "_MOST_OPEN_CHUNKS", most)


async def test_an_audience_goes_on_where_it_stopped_however_often_its_actor_ends(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = await known(process, 450)
    event = await posted(process, IN_APP, named=("guest", names[7]))
    chance, take = random.Random(7), process.store.flights.take_page

    async def dies_now_and_then(*given: Any, **more: Any) -> Any:
        if chance.random() < 0.3:
            raise RedisAway("killed before the page was taken")
        page = await take(*given, **more)
        if chance.random() < 0.3:
            raise RedisAway("killed after the page was taken")
        return page

    monkeypatch.setattr(process.store.flights, "take_page", dies_now_and_then)
    for _ in range(30):
        await fan_out(process.store, str(event.id))
    monkeypatch.undo()
    await carry(process, event)
    assert await reached(process, event) == sorted([*names, "guest"])
    assert await is_complete(process, event, 451)


async def test_each_page_of_an_audience_is_read_once_and_so_are_those_who_were_named(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often its fan-out pauses because enough is to be routed."""
    few_open(monkeypatch, 4)
    names = await known(process, 750)
    event = await posted(process, SMS_NOW, named=("guest", names[7]))
    asked, read_named, page = [], process.store.flights.named, walk.audience.page
    monkeypatch.setattr(walk.audience, "page", lambda *given: asked.append(given[1]) or page(*given))
    monkeypatch.setattr(process.store.flights, "named", lambda event: asked.append("named") or read_named(event))
    await carry(process, event)
    assert sorted(asked) == ["", "named", *names[99::100]]
    assert await is_complete(process, event, 751)


async def test_who_found_people_for_an_earlier_entry_makes_no_page_of_the_next(process: Process) -> None:
    names = await known(process, 250)
    event = await posted(process, SMS_NOW)
    flights = process.store.flights
    late = walk.AudienceWalk(process.store, event, await progress_of(flights, event))
    await flights.take_page(event, "0")
    found = await late.following("@")
    await fan_out(process.store, str(event.id))
    await route(process.store, str(event.id), 0)
    while await flights.back_off(f"c:{event.id}:1", event.id, error="ValueError"):
        pass
    await route(process.store, str(event.id), 2)
    await process.stored()
    done, _ = await process.store.revival.replay(LetterFilter(ids=[event.id]), 10, By("admin", "c1"))
    assert done.replayed == [event.id]
    await flights.take_page(event, "0")
    assert (await flights.take_page(event, "@", found)).state == "gone"
    await carry(process, event)
    assert await claimed(process, 250) == [(name, 1) for name in names]


async def test_two_fan_outs_at_once_make_no_page_twice(process: Process) -> None:
    names = await known(process, 500)
    event = await posted(process, SMS_NOW)
    await asyncio.gather(*(fan_out(process.store, str(event.id)) for _ in range(4)))
    await carry(process, event)
    assert await claimed(process, 500) == [(name, 1) for name in names]
    assert await is_complete(process, event, 500)


async def test_an_audience_goes_on_after_redis_was_emptied(process: Process) -> None:
    names = await known(process, 350)
    event = await posted(process, SMS_NOW, named=("guest", names[200], names[300]))
    await fan_out(process.store, str(event.id))
    for chunk in (0, 2):
        await route(process.store, str(event.id), chunk)
    await process.stored()
    await process.flush()
    assert await process.rebuilt()
    await carry(process, event)
    assert await is_complete(process, event, 351)
    assert await claimed(process, 351) == [(name, 1) for name in sorted([*names, "guest"])]


async def test_only_up_to_the_horizon_is_anything_in_doubt(
    process: Process, other: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process does not say a word: who was perhaps routed is uncertain, who surely was not is not."""
    names = await known(process, 350)
    event = await posted(process, SMS_NOW)
    few_open(monkeypatch, 2)
    await fan_out(process.store, str(event.id))
    await route(process.store, str(event.id), 0)
    await process.stored()
    (horizon,) = (await process.ask("select horizon from events where id = %s", str(event.id)))[0]
    assert horizon == names[199]
    few_open(monkeypatch, 20)
    await process.flush()
    assert await process.rebuilt()
    for _ in range(3):
        await carry(process, event)
    # Those in doubt come out of the index first.
    claims = [claim for _ in range(6) for claim in await process.claim()]
    assert {claim.user for claim in claims} == set(names[200:])
    await process.stored()
    assert await process.statuses(event) == {"QUEUED": 150, "UNCERTAIN": 200}
    assert await is_complete(process, event, 350)


async def test_what_was_sent_to_an_audience_and_not_stored_is_not_sent_again(process: Process) -> None:
    await known(process, 3)
    event = await posted(process, SMS_NOW)
    await fan_out(process.store, str(event.id))
    await route(process.store, str(event.id), 0)
    claims = await process.begun()
    sent = [Ending(claim, Status.SENT, {"provider": "p"}) for claim in claims]
    await process.store.attempts.record(sent[:1])
    await process.flush()
    assert await process.rebuilt()
    await carry(process, event)
    assert await process.claim(resend=True) == []
    await process.store.attempts.record(sent[1:])
    await process.stored()
    assert await process.statuses(event) == {"SENT": 3}
    assert await process.claim(resend=True) == []


async def test_who_read_before_the_loss_is_not_told_again(process: Process) -> None:
    names = await known(process, 3)
    event = await posted(process, IN_APP, SMS_LATER)
    await fan_out(process.store, str(event.id))
    await route(process.store, str(event.id), 0)
    await process.store.flights.read(names[0], [(walk.ids.notification_id(event.id, names[0]), False)])
    reads = [fact for entry in await process.store.facts.take("x", 10) for fact in entry[1] if fact["f"] == "read"]
    await process.flush()
    await process.store.facts.append(reads)
    assert await process.rebuilt()
    await carry(process, event)
    assert await process.statuses(event) == {"CANCELLED": 1, "SCHEDULED": 2}


async def test_an_audience_of_which_a_chunk_was_given_up_is_replayed_for_those_alone(process: Process) -> None:
    names = await known(process, 350)
    event = await posted(process, SMS_NOW, named=("guest",))
    await fan_out(process.store, str(event.id))
    entry = f"c:{event.id}:2"
    while await process.store.flights.back_off(entry, event.id, error="ValueError"):
        pass
    for chunk in (0, 1, 3, 4):
        await route(process.store, str(event.id), chunk)
    await process.stored()
    assert len(await reached(process, event)) == 251
    before = await claimed(process, 251)
    by = By("admin", "c1")
    done, _ = await process.store.revival.replay(LetterFilter(ids=[event.id]), 10, by)
    assert done.replayed == [event.id]
    await carry(process, event)
    after = await claimed(process, 100)
    assert sorted([*before, *after]) == [(name, 1) for name in sorted([*names, "guest"])]
    assert await is_complete(process, event, 351)


async def test_an_audience_whose_people_could_not_be_read_is_replayed(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = await known(process, 150)
    event = await posted(process, SMS_NOW)

    def breaks(*_: Any) -> Any:
        raise ValueError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(walk.audience, "page", breaks)
        for _ in range(6):
            await fan_out(process.store, str(event.id))
    await process.stored()
    audit = await process.store.postgres.call(event_audit, event.id)
    assert audit is not None
    assert (audit.row.status, audit.row.error) == ("FAILED", "ValueError")
    await process.store.revival.replay(LetterFilter(ids=[event.id]), 10, By("admin", "c1"))
    await carry(process, event)
    assert await claimed(process, 150) == [(name, 1) for name in names]
    assert await is_complete(process, event, 150)


async def test_of_the_people_of_an_audience_redis_keeps_no_contacts(process: Process) -> None:
    """Chunks carry what routing needs; sends ask Postgres."""
    await known(process, 1)
    event = await posted(process, SMS_NOW)
    await carry(process, event)
    assert not await process.client.keys("tocsin:profile:*")
    (claim,) = await process.claim(Channel.SMS)
    (message,) = (await messages_for(process.store, [claim])).values()
    assert message is not None
    assert message.address == "+14155550123"
    assert not await process.client.keys("tocsin:profile:*")
