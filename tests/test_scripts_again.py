"""Every script is sent twice with the same arguments, as the client does when a reply was lost: at once, and much later
when others have gone on. Nothing more changes, and the second answer does no harm."""

from collections.abc import Iterator
from typing import Any, cast
from uuid import uuid4

import fakeredis
import pytest
from redis.exceptions import ResponseError

from tests.clock import Clock
from tests.scenes import an_event, chunk_of, people, route_chunk, routed, routing
from tests.test_restore import lost, sms
from tests.workbench import LEASE_MS, Bench
from tocsin.domain.delivery import Channel, Reason, Status
from tocsin.domain.event import Contact
from tocsin.domain.plan import Step
from tocsin.storage.calls import Calls
from tocsin.storage.cancellations import Cancellation, Wanted
from tocsin.storage.flight_parts import Claim, Ending
from tocsin.storage.gathered import gather
from tocsin.storage.people import People
from tocsin.storage.scripts import Scripts
from tocsin.storage.settling import Settling, Telling
from tocsin.storage.stops import Stops

SOON_MS, LATER_MS = 1_000, 60_000
IN_APP_SMS_EMAIL = (Step(Channel.IN_APP, 0), Step(Channel.SMS, 0), Step(Channel.EMAIL, SOON_MS))


class Twice(Scripts):
    """Sends each script twice and passes the second answer on, as the client does whose first reply was lost."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.client, bench.keys)
        self._bench = bench
        self.answers: dict[str, list[tuple[Any, Any]]] = {}
        self.changed: list[str] = []

    async def run(self, name: str, *arguments: object) -> Any:
        first = await super().run(name, *arguments)
        before = await state(self._bench)
        second = await super().run(name, *arguments)
        if await state(self._bench) != before:
            self.changed.append(name)
        self.answers.setdefault(name, []).append((first, second))
        return second


async def state(bench: Bench) -> dict[str, Any]:
    """Everything in Redis but how many facts were told; of the journal what it comes to, for a fact that is told twice
    is one fact."""
    kept: dict[str, Any] = {"journal": str(gather([("", await bench.facts())]))}
    for name in set(await bench.client.keys("*")) - {"t:last_fact", "t:facts:bytes"}:
        kind = await bench.client.type(name)
        if kind == "hash":
            kept[name] = await bench.client.hgetall(name)
        elif kind == "zset":
            kept[name] = await bench.client.zrange(name, 0, -1, withscores=True)
        elif kind == "list":
            kept[name] = await bench.client.lrange(name, 0, -1)
        elif kind == "string":
            kept[name] = await bench.client.get(name)
    return kept


@pytest.fixture
def clock() -> Iterator[Clock]:
    with pytest.MonkeyPatch.context() as patch:
        yield Clock(patch)


@pytest.fixture
def bench(clock: Clock) -> Bench:
    return Bench(fakeredis.FakeAsyncRedis(decode_responses=True))


@pytest.fixture
def twice(bench: Bench) -> Twice:
    scripts = Twice(bench)
    bench.run_by(scripts)
    return scripts


def failed(claim: Claim, retry_in_ms: int | None = 0) -> Ending:
    return Ending(claim, Status.FAILED, {}, retry_in_ms=retry_in_ms, retry_reason=Reason.TIMEOUT)


async def test_nothing_more_changes_however_often_a_script_is_sent(bench: Bench, twice: Twice, clock: Clock) -> None:
    event = an_event(*IN_APP_SMS_EMAIL, recipient_count=3)
    flights, users = bench.flights, ("u1", "u2", "u3")
    await bench.profiles.keep([Contact(id=user, email=f"{user}@example.org", version=1) for user in users])
    await flights.accept(event, people(*users), None)
    assert (await flights.take_page(event, "0")).state == "gone"
    await flights.back_off(f"c:{event.id}:0", event.id, error=None)
    await flights.back_off(f"c:{event.id}:0", event.id, error="ValueError")
    assert await route_chunk(flights, event, 0, [routing(event, user) for user in users]) is None
    clock.advance(SOON_MS)
    assert await flights.escalate([Channel.SMS, Channel.EMAIL]) == (["s:SMS", "s:EMAIL"], False)
    one, two, three = await bench.claim(Channel.SMS)
    await bench.attempts.release([three], "t1")
    assert await bench.attempts.begin([one, two], "t1", lease_ms=LEASE_MS, detail={"provider": "p"}) == [True, True]
    await bench.end_lease_of(two.notification, two.step)
    await bench.attempts.end_leases(Channel.SMS, [(two.notification, two.step)], attempts=3, resend=True)
    assert await bench.attempts.record([Ending(one, Status.SENT, {}), failed(two, SOON_MS)]) == [False, False]
    (read,) = await flights.read(one.user, [(one.notification, False)])
    assert read.state == "changed"
    assert await flights.withdraw(event.id, [one.notification, two.notification, three.notification]) == 0
    assert await flights.restore([lost(an_event(), sms(Status.QUEUED))]) == ["restored"]
    (listed,) = await bench.lists.entries("u1")
    await bench.lists.trim([("u1", listed.id, listed.event, listed.listed_ms)])
    await Calls(bench.client, twice, bench.keys).put("persist", "persist")
    settling = Telling(three.notification, three.step, three.channel, 1, Status.DELIVERED, {}, "delivered")
    assert await Settling(twice).tell([settling]) == [False]
    await bench.client.delete(bench.keys.event(event.id))
    await flights.keep_content([event])
    assert await bench.journal.oldest_ms() is not None
    assert twice.changed == []
    await bench.journal.take("one", 1)
    await bench.journal.done([identifier for identifier, _ in await bench.client.xrange(bench.keys.facts, count=1)])
    await bench.journal.leave("one")
    assert twice.changed == []
    alike = {"claim", "begin", "read", "restore", "kick", "profile", "trim", "release", "forget", "ends", "content"}
    changing = {
        "group",
        "accept",
        "fan_out",
        "back_off",
        "route",
        "escalate",
        "end_leases",
        "record",
        "withdraw",
        "tend",
        "settle",
    }
    assert set(twice.answers) == alike | changing
    assert [name for name in alike for first, second in twice.answers[name] if first != second] == []


async def test_what_is_stopped_is_stopped_once(bench: Bench, twice: Twice, clock: Clock) -> None:
    event, other = an_event(*IN_APP_SMS_EMAIL), an_event()
    people_known = People(bench.flights, bench.profiles, cast(Any, None))
    stops = Stops(bench.client, bench.keys, twice, bench.flights, people_known)
    for each in (event, other):
        await bench.flights.accept(each, people("u1"), None)
    asked = Cancellation(uuid4(), 1, "ops", "c1", "wrong", Wanted(type=event.type, to_ms=event.accepted_ms + 1))
    assert await stops.withdraw([other.id], "wrong", "ops", 1) == 0, "the first time it was one"
    for _ in range(2):
        await stops.begin(asked)
    await bench.flights.take_page(event, "0")
    await route_chunk(bench.flights, event, 0, [routing(event, "u1")])
    assert await stops.held() == [asked.id]
    assert [first for first, _ in twice.answers["stop"]] == [1, 0, 0]
    assert await stops.let_go(asked.id) == 0
    assert twice.answers["unstop"] == [(1, 0)]
    assert await bench.client.exists(bench.keys.stops) == 0
    assert twice.changed == []
    assert {fact["e"] for fact in await bench.facts() if fact["f"] == "cancelled"} == {str(event.id), str(other.id)}


async def test_a_failure_counts_once_though_it_is_told_twice(bench: Bench, twice: Twice) -> None:
    event = an_event()
    await bench.flights.accept(event, people("u1"), None)
    tries = [await bench.flights.back_off(f"e:{event.id}", event.id, error="ValueError") for _ in range(4)]
    assert tries == [True, True, True, True]
    assert await bench.flights.back_off(f"e:{event.id}", event.id, error="ValueError") is False
    assert twice.answers["back_off"][-1] == ("failed", "gone")


async def test_work_whose_event_is_gone_is_no_work(bench: Bench, clock: Clock) -> None:
    event = an_event()
    await bench.flights.accept(event, people("u1"), None)
    await bench.flights.take_page(event, "0")
    await bench.client.zadd(bench.keys.due, {f"e:{event.id}": 0})
    await bench.client.delete(bench.keys.event(event.id))
    clock.advance(LATER_MS)
    assert await bench.flights.escalate([]) == ([], False)
    assert await bench.flights.back_off(f"c:{event.id}:0", event.id, error="ValueError") is False
    assert await bench.leftovers() == set()
    assert not await bench.client.exists(bench.keys.event(event.id))


async def again(bench: Bench, name: str, call: Any) -> Any:
    """Makes a call and answers a function that sends the same script with the same arguments once more."""
    run, sent = bench.scripts.run, []

    async def noting(script: str, *arguments: object) -> Any:
        sent.append((script, arguments))
        return await run(script, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.scripts, "run", noting)
        await call
    ((script, arguments),) = sent
    assert script == name

    async def resend() -> Any:
        return await run(script, *arguments)

    return resend


async def test_a_restore_that_comes_again_after_the_send_restores_nothing(bench: Bench, clock: Clock) -> None:
    event = an_event()
    resend = await again(bench, "restore", bench.flights.restore([lost(event, sms(Status.QUEUED))]))
    (claim,) = await bench.sending(Channel.SMS)
    await bench.attempts.record([Ending(claim, Status.SENT, {})])
    clock.advance(LATER_MS)
    assert await resend() == ["restored"]
    assert await bench.claim(Channel.SMS, "t2") == []
    assert {name for name in await bench.leftovers() if "flight" in name or "due" in name} == set()


async def test_an_outcome_that_comes_again_when_the_next_attempt_is_under_way_moves_nothing(bench: Bench) -> None:
    await routed(bench.flights, an_event(Step(Channel.SMS, 0)), "u1")
    (claim,) = await bench.sending(Channel.SMS)
    resend = await again(bench, "record", bench.attempts.record([failed(claim)]))
    (second,) = await bench.sending(Channel.SMS, "t2")
    answer, *_ = await resend()
    assert answer == "0"
    assert await bench.attempts.record([Ending(second, Status.SENT, {})]) == [False]
    assert await bench.leftovers() == set()
    assert [(n, status) for _, n, status, _ in await bench.moves() if status == "RETRYING"] == [(2, "RETRYING")]


async def test_an_actor_that_never_began_says_nothing_of_an_attempt_that_another_has_begun(
    bench: Bench, clock: Clock
) -> None:
    """The answer of its beginning was lost, and with it Redis for longer than a lease."""
    await routed(bench.flights, an_event(Step(Channel.SMS, 0)), "u1")
    (never_begun,) = await bench.claim(Channel.SMS, "t1")
    clock.advance(LEASE_MS)
    (begun,) = await bench.sending(Channel.SMS, "t2")
    assert begun.attempt == never_begun.attempt
    assert await bench.attempts.record([failed(never_begun)]) == [False]
    assert [status for _, _, status, _ in await bench.moves()] == ["SENDING"]
    await bench.attempts.record([Ending(begun, Status.UNCERTAIN, {})])
    assert [status for _, _, status, _ in await bench.moves()] == ["SENDING", "UNCERTAIN"]


async def test_a_release_that_comes_again_frees_nobody_elses_claim(bench: Bench) -> None:
    await routed(bench.flights, an_event(Step(Channel.SMS, 0)), "u1")
    claims = await bench.claim(Channel.SMS, "t1")
    resend = await again(bench, "release", bench.attempts.release(claims, "t1"))
    second = await bench.claim(Channel.SMS, "t2")
    await resend()
    assert await bench.claim(Channel.SMS, "t3") == []
    assert await bench.attempts.begin(second, "t2", lease_ms=LEASE_MS, detail={}) == [True]


async def test_a_beginning_that_comes_again_after_its_lease_begins_nothing_anew(bench: Bench, clock: Clock) -> None:
    await routed(bench.flights, an_event(Step(Channel.SMS, 0)), "u1")
    claims = await bench.claim(Channel.SMS, "t1")
    resend = await again(bench, "begin", bench.attempts.begin(claims, "t1", lease_ms=LEASE_MS, detail={}))
    clock.advance(LEASE_MS)
    (second,) = await bench.claim(Channel.SMS, "t2", resend=True)
    answer, *_ = await resend()
    assert answer == "0"
    assert second.attempt == 2


async def test_a_claim_that_comes_again_names_nothing_that_another_holds(bench: Bench, clock: Clock) -> None:
    await routed(bench.flights, an_event(Step(Channel.SMS, 0)), "u1")
    resend = await again(bench, "claim", bench.claim(Channel.SMS, "t1", lease_ms=SOON_MS))
    clock.advance(SOON_MS + 1)
    (second,) = await bench.claim(Channel.SMS, "t2")
    assert await resend() == []
    assert await bench.attempts.begin([second], "t2", lease_ms=LEASE_MS, detail={}) == [True]


async def test_a_page_that_comes_again_is_not_made_again(bench: Bench) -> None:
    event = an_event(Step(Channel.IN_APP, 0))
    await bench.flights.accept(event, people(*(f"u{number}" for number in range(150))), None)
    resend = await again(bench, "fan_out", bench.flights.take_page(event, "0"))
    await bench.flights.take_page(event, "100")
    assert (await resend())[0] == "gone"
    assert [len(await chunk_of(bench.flights, event, number)) for number in range(3)] == [100, 50, 0]


async def test_a_read_that_comes_again_says_once_more_that_it_changed_something(bench: Bench) -> None:
    (made,) = await routed(bench.flights, an_event(Step(Channel.SMS, SOON_MS)), "u1")
    resend = await again(bench, "read", bench.flights.read("u1", [(made.id, False)]))
    answer, *_ = await resend()
    assert answer.startswith("changed|")
    (other,) = await bench.flights.read("u1", [(made.id, False)])
    assert other.state == "known"
    assert len([fact for fact in await bench.facts() if fact["f"] == "read"]) == 1


async def test_a_look_at_what_is_due_that_comes_again_lists_nothing_twice(bench: Bench, clock: Clock) -> None:
    await routed(bench.flights, an_event(Step(Channel.IN_APP, SOON_MS), Step(Channel.SMS, SOON_MS)), "u1")
    clock.advance(SOON_MS)
    resend = await again(bench, "escalate", bench.flights.escalate([Channel.SMS]))
    answer = await resend()
    assert (answer[0], answer[2:]) == ("0", ["s:SMS"])
    assert len(await bench.lists.entries("u1")) == 1
    assert len(await bench.claim(Channel.SMS)) == 1


@pytest.mark.parametrize("key", ["t:due:SMS:critical", "t:due:EMAIL", "t:due:SMS"])
async def test_a_stray_entry_of_the_index_lets_nobody_claim_what_is_claimed(bench: Bench, key: str) -> None:
    event = an_event(Step(Channel.SMS, 0))
    (made,) = await routed(bench.flights, event, "u1")
    (claim,) = await bench.claim(Channel.SMS)
    await bench.client.zadd(key, {f"{made.id}:1": 0})
    assert await bench.claim(Channel(key.split(":")[2]), "t2") == []
    assert await bench.attempts.begin([claim], "t1", lease_ms=LEASE_MS, detail={}) == [True]
    assert await bench.client.zscore("t:due:SMS", f"{made.id}:1") > 0


async def test_a_flight_that_cannot_be_read_holds_nobody_up(bench: Bench, clock: Clock) -> None:
    bad, good = await routed(bench.flights, an_event(Step(Channel.SMS, SOON_MS), Step(Channel.EMAIL, 0)), "u1", "u2")
    text = str(bad.id)
    await bench.client.hset(f"t:flight:{text[:18]}", text[19:], "nonsense")
    clock.advance(SOON_MS)
    await bench.flights.escalate([Channel.SMS])
    assert [claim.notification for claim in await bench.claim(Channel.SMS)] == [good.id]
    assert [claim.notification for claim in await bench.claim(Channel.EMAIL, "t2")] == [good.id]
    (answer,) = await bench.flights.read("u1", [(bad.id, True)])
    assert answer.state == "changed"


async def test_what_broke_off_half_way_is_done_when_it_is_called_again(bench: Bench, clock: Clock) -> None:
    """Redis takes nothing back of a script that fails. Here what another try left lies in the way."""
    event = an_event(Step(Channel.IN_APP, 0))
    await bench.client.set(bench.keys.chunk(event.id, 0), "in the way")
    await bench.client.rpush(f"t:recipients:{event.id}", "left of another try")
    await bench.flights.accept(event, people("u1", "u2"), None)
    page = await bench.flights.take_page(event, "0")
    assert page.chunk == 0
    assert await chunk_of(bench.flights, event, 0) == ["u1", "u2"]


async def test_an_event_whose_entry_broke_off_can_be_entered_again(bench: Bench, clock: Clock) -> None:
    event = an_event(Step(Channel.IN_APP, 0))
    await bench.client.set(bench.keys.due, "in the way")
    with pytest.raises(ResponseError):
        await bench.flights.accept(event, people("u1"), None)
    await bench.client.delete(bench.keys.due)
    assert await bench.flights.accept(event, people("u1"), None)
    assert (await bench.flights.take_page(event, "0")).state == "last"
