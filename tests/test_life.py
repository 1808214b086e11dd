"""Which life of Redis this is: noticed when it is another one, agreed on by many, begun once."""

import asyncio
import time
from contextlib import closing
from typing import Any

import pytest
import redis

from tests.scenes import people
from tests.test_rebuild import IN_APP, SMS_LATER, SMS_NOW, Process, an_event_of, opened
from tocsin.domain.delivery import Status
from tocsin.domain.errors import Overloaded, PostgresAway, RedisAway, RedisLost
from tocsin.domain.settings import load
from tocsin.storage import life as memory
from tocsin.storage import lives
from tocsin.storage.database import cursor
from tocsin.storage.flight_parts import Ending
from tocsin.storage.life import UNKNOWN, Life
from tocsin.storage.postgres import Postgres
from tocsin.storage.store import Store

NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"

__all__ = ["opened"]


@pytest.fixture
async def process(redis_url: str, postgres_url: str) -> Any:
    async for made in opened(redis_url, postgres_url):
        yield made


@pytest.fixture
async def other(process: Process, redis_url: str, postgres_url: str) -> Any:
    async for made in opened(redis_url, postgres_url):
        yield made


async def waiting(process: Process, *users: str) -> None:
    """An event that waits for its SMS, stored."""
    event = an_event_of(IN_APP, SMS_LATER, count=len(users))
    await process.accept(event, *users)
    await process.route_all(event)
    await process.stored()


def copied(process: Process) -> dict[bytes, bytes]:
    """Everything in Redis, as an older copy of it would have it."""
    with closing(redis.Redis.from_url(str(process.store.settings.redis.url))) as client:
        return {name: client.dump(name) for name in client.keys("*")}


def set_back(process: Process, copy: dict[bytes, bytes]) -> None:
    """Redis as it was."""
    with closing(redis.Redis.from_url(str(process.store.settings.redis.url))) as client:
        client.flushall()
        for name, dumped in copy.items():
            client.restore(name, 0, dumped)


class TestWhatIsKept:
    def test_what_is_stored_is_let_go(self) -> None:
        life = Life("e")
        life.remember({"f": "read", "n": [1]})
        now_ms = time.time_ns() // 1_000_000
        life.stored_before(now_ms - 60_000, now_ms)
        assert life.testimony() == [{"f": "read", "n": [1]}]
        life.stored_before(None, now_ms + 60_000)
        assert life.testimony() == []
        assert life.complete

    def test_what_is_too_much_is_let_go_and_owned_up_to(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(memory, "_MOST_KEPT", 5)
        life = Life("e")
        for number in range(4):
            life.remember({"f": "moved", "d": [number, number]})
        assert life.testimony() == [{"f": "moved", "d": [number, number]} for number in (2, 3)]
        assert not life.complete

    def test_a_tool_that_works_in_no_life_keeps_nothing(self) -> None:
        life = Life()
        life.remember({"f": "read"})
        assert life.testimony() == []


@pytest.mark.servers
async def test_the_first_life_begins_by_itself(process: Process, other: Process) -> None:
    assert process.store.life.epoch == other.store.life.epoch == await process.client.get("tocsin:epoch")
    assert await process.ask("select cause, exact from lives") == [("first", True)]


@pytest.mark.servers
@pytest.mark.parametrize("facts", [0, 1])
async def test_a_redis_that_was_set_back_is_noticed_whatever_it_was_told_since(process: Process, facts: int) -> None:
    await waiting(process, "u1")
    copy = copied(process)
    await waiting(process, "u2")
    set_back(process, copy)
    for _ in range(facts):
        await process.store.facts.append([{"f": "read", "at": 1, "n": []}])
    with pytest.raises(RedisLost):
        await process.claim()
    assert await process.rebuilt()
    assert await process.client.zcard("tocsin:due") == 2
    (cause,) = await process.ask("select cause from lives order by number desc limit 1")
    assert cause == ("rolled_back",)


@pytest.mark.servers
async def test_what_was_sent_before_redis_was_set_back_is_not_sent_again(process: Process) -> None:
    event = an_event_of(SMS_NOW)
    await process.accept(event, "u1")
    await process.route_all(event)
    await process.stored()
    copy = copied(process)
    (claim,) = await process.begun()
    await process.store.attempts.record([Ending(claim, Status.SENT, {"provider": "p"})])
    await process.stored()
    set_back(process, copy)
    assert await process.rebuilt()
    assert await process.claim(resend=True) == []


@pytest.mark.servers
async def test_a_process_that_starts_knows_by_postgres_that_redis_is_older(
    process: Process, redis_url: str, postgres_url: str
) -> None:
    await waiting(process, "u1")
    copy = copied(process)
    await waiting(process, "u2")
    set_back(process, copy)
    async for late in opened(redis_url, postgres_url):
        assert late.store.life.is_lost


@pytest.mark.servers
async def test_two_that_notice_at_once_make_one_life(process: Process, other: Process) -> None:
    await waiting(process, "u1")
    await other.store.keeper.look()
    await process.flush()
    await asyncio.gather(process.store.keeper.look(), other.store.keeper.look())
    assert process.store.life.coming == other.store.life.coming != ""
    done = await asyncio.gather(process.rebuilder.rebuild(), other.rebuilder.rebuild())
    assert sorted(done) == [False, True]
    await asyncio.gather(process.store.keeper.look(), other.store.keeper.look())
    assert process.store.life.epoch == other.store.life.epoch
    assert await process.ask("select cause, exact from lives order by number") == [("first", True), ("emptied", True)]


@pytest.mark.servers
async def test_what_one_process_knows_another_puts_back(process: Process, other: Process) -> None:
    event = an_event_of(SMS_NOW)
    await process.accept(event, "u1")
    await process.route_all(event)
    await process.stored()
    (claim,) = await other.begun()
    await other.store.attempts.record([Ending(claim, Status.SENT, {"provider": "p"})])
    await process.flush()
    await other.store.keeper.look()
    assert await process.rebuilt()
    assert await process.claim(resend=True) == []
    await process.stored()
    assert await process.statuses(event) == {"SENT": 1}


@pytest.mark.servers
async def test_what_others_hear_of_while_it_is_asked_is_no_loss(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer says how far the journal was when it was given; other calls of this process are answered meanwhile."""
    scripts, life = process.store.keeper._scripts, process.store.life
    run, told = scripts.run, '{"f":"read","at":1,"n":[]}'
    await run("tell", told)

    async def with_others(name: str, *given: object) -> Any:
        answer = await run(name, *given)
        if name == "life":
            await run("tell", told)
            life.follow(int((await run("life"))[1]))
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(scripts, "run", with_others)
        await process.store.keeper.look()
    assert not life.is_lost
    assert (await run("life"))[0] == life.epoch


async def test_a_loss_during_the_rebuild_lets_it_begin_again(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    await waiting(process, "u1", "u2")
    await process.flush()
    await process.store.keeper.look()
    mirrored = process.store.profiles.mirrored_up_to

    async def lost_again(moment_ms: int) -> None:
        await mirrored(moment_ms)
        await process.flush()

    monkeypatch.setattr(process.store.profiles, "mirrored_up_to", lost_again)
    assert not await process.rebuilt()
    monkeypatch.undo()
    with pytest.raises(RedisLost):
        await process.claim()
    assert await process.rebuilt()
    assert await process.client.zcard("tocsin:due") == 2
    assert len(await process.ask("select epoch from lives")) == 2


@pytest.mark.servers
async def test_an_event_that_only_redis_had_outlives_it(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    event = an_event_of(SMS_NOW)
    process.store._intake.redis_is_durable = True

    async def away(*_: Any, **__: Any) -> None:
        raise PostgresAway("it is away")

    with monkeypatch.context() as patch:
        patch.setattr(process.store.postgres, "call_within", away)
        await process.accept(event, "u1")
    await process.flush()
    assert await process.rebuilt()
    await process.route_all(event)
    assert len(await process.claim()) == 1


@pytest.mark.servers
async def test_with_postgres_away_the_rebuild_waits_and_events_are_taken(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    await waiting(process, "u1")
    await process.flush()
    process.store._intake.redis_is_durable = True

    async def away(*_: Any, **__: Any) -> None:
        raise PostgresAway("it is away")

    event = an_event_of(SMS_NOW)
    with monkeypatch.context() as patch:
        patch.setattr(process.store.postgres, "call_within", away)
        await process.store.keeper.look()
        await process.accept(event, "u2")
        with pytest.raises(PostgresAway):
            await process.rebuilder.rebuild()
        with pytest.raises(RedisLost):
            await process.claim()
    assert await process.rebuilt()
    await process.route_all(event)
    assert [claim.user for claim in await process.claim()] == ["u2"]
    assert await process.client.zcard("tocsin:due") == 1


@pytest.mark.servers
async def test_a_process_that_starts_without_postgres_believes_the_redis_it_finds(
    process: Process, redis_url: str
) -> None:
    settings = load({}).with_values({"postgres.url": NOWHERE, "redis.url": redis_url})
    postgres = Postgres(settings.postgres)
    late = await Store.open(settings, postgres)
    assert late.life.epoch == process.store.life.epoch
    await late.close()
    await process.flush()
    empty = await Store.open(settings, postgres)
    assert empty.life.epoch == UNKNOWN
    await empty.close()
    await postgres.close()


@pytest.mark.servers
async def test_who_stopped_with_nothing_to_tell_is_not_waited_for(process: Process, other: Process) -> None:
    await waiting(process, "u1")
    await other.store.keeper.look()
    await other.store.keeper.leave()
    await process.flush()
    await process.store.keeper.look()
    assert (await process.store.postgres.call(lives.heard, process.store.life.coming)).missing == 0


@pytest.mark.servers
async def test_what_redis_refuses_to_be_told_again_is_told_once_it_takes_it(process: Process) -> None:
    keeper, told_again = process.store.keeper, {"f": "read", "at": 1, "n": []}
    process.store.life.remember(told_again)
    await process.client.config_set("min-replicas-to-write", 1)
    with pytest.raises(Overloaded):
        await keeper._tell_again("next")
    await process.client.config_set("min-replicas-to-write", 0)
    await keeper._tell_again("next")
    assert told_again in [fact for _, facts in await process.store.facts.take("tests", 10) for fact in facts]


@pytest.mark.servers
@pytest.mark.parametrize("away", [False, True])
async def test_who_stops_as_redis_is_lost_tells_what_it_knows_before_it_goes(
    process: Process, other: Process, monkeypatch: pytest.MonkeyPatch, away: bool
) -> None:
    """Also with Postgres away: what it tells lies in the journal, and the rebuild finds it there."""
    event = an_event_of(SMS_NOW)
    await other.accept(event, "u1")
    await other.route_all(event)
    (claim,) = await other.begun()
    await other.store.attempts.record([Ending(claim, Status.SENT, {"provider": "p"})])
    await process.flush()
    if away:
        postgres = Postgres(load({}).with_values({"postgres.url": NOWHERE}).postgres)
        monkeypatch.setattr(other.store.keeper, "_postgres", postgres)
    await other.store.keeper.leave()
    assert await process.rebuilt()
    await process.route_all(event)
    await process.stored()
    assert await process.statuses(event) == {"SENT": 1}
    assert await process.claim(resend=True) == []


@pytest.mark.servers
async def test_who_died_long_before_the_loss_is_not_waited_for(process: Process, other: Process) -> None:
    await process.flush()
    await process.store.keeper.look()
    for later in range(4):
        assert (await process.store.postgres.call(lives.heard, process.store.life.coming)).missing == 1, later
        await next_round(process)
    assert (await process.store.postgres.call(lives.heard, process.store.life.coming)).missing == 0


@pytest.mark.servers
async def test_an_outage_of_postgres_makes_nobody_silent(process: Process, other: Process) -> None:
    """Nobody could say a word, and what was told meanwhile is not stored."""
    await process.ask("update witnesses set drained_at = now() - interval '1 hour'")
    await process.ask("update witness_rounds set began_at = now() - interval '1 hour'")
    await process.store.postgres.call(lives.beat, process.name, 0, process.store.life.epoch)
    assert (await process.store.postgres.call(lives.heard, "coming")).missing == 2


@pytest.mark.servers
async def test_no_round_begins_before_what_was_told_in_the_last_one_is_stored(process: Process) -> None:
    async def rounds(drained_age_ms: int) -> int:
        before = await process.ask("select number from witness_rounds")
        await process.store.postgres.call(lives.beat, process.name, drained_age_ms, process.store.life.epoch)
        return int((await process.ask("select number from witness_rounds"))[0][0] - before[0][0])

    assert await rounds(0) == 0
    await process.ask("update witness_rounds set began_at = now() - interval '10 seconds'")
    assert await rounds(11_000) == 0
    assert await rounds(9_000) == 1
    assert await rounds(0) == 0


@pytest.mark.servers
async def test_who_starts_while_postgres_is_away_is_waited_for_as_soon_as_it_notices_a_loss(process: Process) -> None:
    postgres = process.store.postgres
    await process.ask("delete from witnesses")
    await process.flush()
    with process.store.life.under_way():
        looking = asyncio.create_task(process.store.keeper.look())
        async with asyncio.timeout(5):
            while not (await postgres.call(lives.heard, "coming")).missing:  # noqa: ASYNC110  # the other end is Postgres
                await asyncio.sleep(0.01)
    await looking
    assert (await postgres.call(lives.heard, process.store.life.coming)).missing == 0


@pytest.mark.servers
async def test_a_witness_is_forgotten_when_all_that_it_told_is_stored_since_long(
    process: Process, other: Process
) -> None:
    async def names() -> set[str]:
        await process.store.postgres.call(lives.forget_silent)
        return {name for (name,) in await process.ask("select name from witnesses")}

    both = {process.name, other.name}
    # Nothing is stored since it was seen: a rebuild has to know that it is missing, however long ago that is.
    await process.ask("update witnesses set drained_at = now() - interval '9 days'")
    assert await names() == both
    await process.ask("update witness_rounds set number = number + 1000")
    await process.store.postgres.call(lives.seen, process.name)
    assert await names() == {process.name}


@pytest.mark.servers
async def test_an_event_that_postgres_has_is_not_entered_by_a_call_that_comes_after_a_loss(process: Process) -> None:
    """It may have been entered, routed and sent in the life before: whoever rebuilds knows."""
    event = an_event_of(SMS_NOW)
    await process.store.flights.accept(event, people("u1"), None)
    await process.flush()
    with pytest.raises(RedisLost):
        await process.store.flights.accept(event, people("u1"), None)
    assert await process.store.flights.event(event.id) is None


@pytest.mark.servers
async def test_who_is_silent_because_redis_is_away_is_waited_for(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper, postgres = process.store.keeper, process.store.postgres
    await keeper.look()
    await postgres.call(long_silent)
    assert (await postgres.call(lives.heard, "coming")).missing == 0

    async def away() -> None:
        raise RedisAway("Redis does not answer")

    monkeypatch.setattr(keeper, "look", away)
    keeping = asyncio.create_task(keeper.run())
    async with asyncio.timeout(5):
        while not (await postgres.call(lives.heard, "coming")).missing:  # noqa: ASYNC110  # the other end is Postgres
            await asyncio.sleep(0.01)
    keeping.cancel()


@pytest.mark.servers
async def test_a_defect_while_redis_is_away_does_not_end_the_looks(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper, looks = process.store.keeper, list[int]()

    async def away() -> None:
        looks.append(1)
        raise RedisAway("Redis does not answer")

    async def defect() -> None:
        raise KeyError("a defect")

    monkeypatch.setattr(keeper, "look", away)
    monkeypatch.setattr(keeper, "store_resting", defect)
    process.store.life.coming = "next"
    keeping = asyncio.create_task(keeper.run())
    async with asyncio.timeout(5):
        while len(looks) < 2 and not keeping.done():  # noqa: ASYNC110  # the other end sleeps
            await asyncio.sleep(0.01)
    assert not keeping.done()
    keeping.cancel()


def long_silent() -> None:
    with cursor() as query:
        query.execute("update witness_rounds set number = number + 10")


async def next_round(process: Process) -> None:
    """Everything is stored, and time goes by."""
    await process.ask("update witness_rounds set began_at = now() - interval '5 seconds'")
    await process.store.postgres.call(lives.beat, process.name, 0, process.store.life.epoch)
