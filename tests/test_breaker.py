"""A provider that is down rests: nothing behind it uses up attempts, and everything goes out when it is back."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import fakeredis
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from loguru import logger
from prometheus_client import CollectorRegistry

from tests.scenes import an_event, people, routed
from tests.test_lanes import SENT, Carrier, told
from tests.workbench import store_without_postgres
from tocsin.actors.metrics import SendCounters
from tocsin.actors.outcomes import SendRules, health_of
from tocsin.actors.send import Lane
from tocsin.channels.contract import Message, Outcome, OutcomeKind
from tocsin.domain.breaker import BreakerRules, Health
from tocsin.domain.delivery import Channel, Reason, Status
from tocsin.domain.plan import Priority, Step
from tocsin.domain.retry import RetryRule
from tocsin.storage.attempts import Attempts
from tocsin.storage.breakers import Breakers
from tocsin.storage.flight_parts import Claim, Ending, InboxSettings
from tocsin.storage.flights import Flights
from tocsin.storage.keys import Keys
from tocsin.storage.scripts import Scripts
from tocsin.storage.store import Store

LEASE_MS = 60_000
NAME = "SMS:carrier"
RULES = BreakerRules(failures=3, rest_ms=1_000, cap_ms=8_000, successes=3)
DOWN = Outcome(OutcomeKind.TEMPORARY, Reason.PROVIDER_DOWN)


class Bench:
    """Claims and outcomes of one provider, with its breaker to look into; time is moved by changing it there."""

    def __init__(self, client: Any, rules: BreakerRules = RULES) -> None:
        self.client = client
        self.keys = Keys("t", "notifications")
        inbox = InboxSettings("notifications", True, 60_000)
        scripts = Scripts(client, self.keys)
        self.flights = Flights(client, scripts, self.keys, inbox, rules)
        self.attempts = Attempts(scripts, rules)
        self.breakers = Breakers(client, self.keys)
        self._tokens = 0

    async def waiting(self, count: int, **given: Any) -> None:
        await routed(self.flights, an_event(Step(Channel.SMS, 0), **given), *(f"u{n}" for n in range(count)))

    async def claim(self, most: int = 1, *, lease_ms: int = LEASE_MS) -> list[Claim]:
        self._tokens += 1
        claims = await self.attempts.claim(
            Channel.SMS, f"t{self._tokens}", most, lease_ms=lease_ms, attempts=3, resend=False, provider="carrier"
        )
        if claims:
            await self.attempts.begin(claims, claims[0].token, lease_ms=lease_ms, detail={})
        return claims

    async def end(self, claims: list[Claim], health: Health, *, asked_ms: int = 0) -> list[Ending]:
        """Records that these calls failed without another attempt, or succeeded."""
        status = Status.SENT if health is Health.UP else Status.FAILED
        endings = [Ending(claim, status, {}, health=health, asked_ms=asked_ms) for claim in claims]
        await self.attempts.record(endings)
        return endings

    async def state(self) -> dict[str, Any]:
        text = await self.client.hget(self.keys.breakers, NAME)
        if text is None:
            return {"state": "closed", "failures": 0}
        names = ("failures", "level", "ends", "room", "asked")
        state, *numbers = text.split("|")
        return {"state": state, **dict(zip(names, map(int, numbers), strict=True))}

    async def pass_rest(self) -> None:
        """Lets the rest be over."""
        state, failures, level, _, *others = (await self.client.hget(self.keys.breakers, NAME)).split("|")
        await self.client.hset(self.keys.breakers, NAME, "|".join([state, failures, level, "1", *others]))

    async def now_ms(self) -> int:
        seconds, microseconds = await self.client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def opened(self, waiting: int = 20) -> None:
        """Three calls failed, and the provider rests."""
        await self.waiting(waiting)
        await self.end(await self.claim(3), Health.DOWN)
        assert (await self.state())["state"] == "open"

    async def called(self) -> bool:
        """Whether the look at what is due would call the channel's actor."""
        calls, _ = await self.flights.escalate([Channel.SMS], {Channel.SMS: "carrier"})
        return calls == ["s:SMS"]


@pytest.fixture
def bench(either_redis: Any) -> Bench:
    return Bench(either_redis)


async def test_a_provider_that_fails_again_and_again_rests(bench: Bench) -> None:
    await bench.waiting(10)
    for _ in range(2):
        await bench.end(await bench.claim(), Health.DOWN)
    assert await bench.called()
    await bench.end(await bench.claim(), Health.DOWN)
    assert await bench.claim(100) == []
    assert not await bench.called()
    (resting,) = await bench.breakers.resting()
    assert (resting.channel, resting.provider, resting.failures) == (Channel.SMS, "carrier", 3)
    assert 0 < resting.until_ms - await bench.now_ms() <= RULES.rest_ms


async def test_a_success_between_failures_begins_the_count_anew(bench: Bench) -> None:
    await bench.waiting(10)
    for health in (Health.DOWN, Health.DOWN, Health.UP, Health.DOWN, Health.DOWN):
        await bench.end(await bench.claim(), health)
    assert (await bench.state())["failures"] == 2
    assert len(await bench.claim(100)) == 5


async def test_what_concerns_one_message_alone_never_counts(bench: Bench) -> None:
    await bench.waiting(10)
    for health in (Health.DOWN, Health.UNSAID, Health.DOWN, Health.UNSAID, Health.UNSAID):
        await bench.end(await bench.claim(), health)
    assert await bench.state() == {"state": "closed", "failures": 2, "level": 0, "ends": 0, "room": 0, "asked": 0}


async def test_after_its_rest_one_call_is_tried_at_a_time(bench: Bench) -> None:
    await bench.opened()
    await bench.pass_rest()
    assert await bench.called()
    assert len(await bench.claim(100)) == 1
    assert await bench.claim(100) == []
    assert not await bench.called()


async def test_a_trial_that_fails_makes_the_rest_longer_up_to_the_cap(bench: Bench) -> None:
    await bench.opened()
    for length_ms in (2_000, 4_000, 8_000, 8_000):
        await bench.pass_rest()
        await bench.end(await bench.claim(), Health.DOWN)
        left_ms = (await bench.state())["ends"] - await bench.now_ms()
        assert length_ms - 500 < left_ms <= length_ms


async def test_it_comes_back_little_by_little_and_is_then_as_before(bench: Bench) -> None:
    await bench.opened(30)
    await bench.pass_rest()
    rounds = []
    while claims := await bench.claim(100):
        rounds.append(len(claims))
        await bench.end(claims, Health.UP)
    assert rounds == [1, 2, 24]
    assert await bench.client.keys("t:breakers") == await bench.client.keys("t:trials:*") == []


async def test_a_failure_while_it_comes_back_opens_it_once_for_longer(bench: Bench) -> None:
    await bench.opened(30)
    await bench.pass_rest()
    await bench.end(await bench.claim(), Health.UP)
    assert await bench.breakers.resting() == []
    await bench.end(await bench.claim(100), Health.DOWN)
    assert (await bench.state())["level"] == 2
    assert await bench.claim(100) == []


async def test_the_wait_that_the_provider_asked_for_is_never_undercut(bench: Bench) -> None:
    await bench.waiting(10)
    await bench.end(await bench.claim(), Health.DOWN, asked_ms=60_000)
    await bench.end(await bench.claim(3), Health.DOWN)
    left_ms = (await bench.state())["ends"] - await bench.now_ms()
    assert 59_000 < left_ms <= 60_000


async def test_an_outcome_that_is_recorded_twice_counts_once(bench: Bench) -> None:
    await bench.waiting(10)
    endings = await bench.end(await bench.claim(), Health.DOWN)
    for _ in range(5):
        await bench.attempts.record(endings)
    assert (await bench.state())["failures"] == 1
    await bench.end(await bench.claim(2), Health.DOWN)
    await bench.pass_rest()
    endings = await bench.end(await bench.claim(), Health.DOWN)
    await bench.pass_rest()
    await bench.attempts.record(endings)
    assert (await bench.state())["level"] == 2
    endings = await bench.end(await bench.claim(), Health.UP)
    await bench.attempts.record(endings)
    assert (await bench.state())["room"] == 2


async def test_a_call_from_before_the_rest_neither_closes_nor_prolongs_it(bench: Bench) -> None:
    await bench.waiting(10)
    good, bad, *others = await bench.claim(5)
    await bench.end(others, Health.DOWN)
    before = await bench.state()
    await bench.end([good], Health.UP)
    await bench.end([bad], Health.DOWN)
    assert await bench.state() == before


async def test_a_trial_whose_process_died_makes_way_for_another(bench: Bench) -> None:
    await bench.opened()
    await bench.pass_rest()
    (dead,) = await bench.claim(lease_ms=30)
    async with asyncio.timeout(5):
        while not (others := await bench.claim(100)):  # noqa: ASYNC110  # Redis's clock has no event
            await asyncio.sleep(0.01)
    assert len(others) == 1
    await bench.end([dead], Health.DOWN)
    assert (await bench.state())["level"] == 1
    await bench.end(others, Health.UP)
    assert (await bench.state())["state"] == "growing"


async def test_a_trial_that_is_handed_back_makes_way_for_another(bench: Bench) -> None:
    await bench.opened()
    await bench.pass_rest()
    claims = await bench.attempts.claim(
        Channel.SMS, "x", 9, lease_ms=LEASE_MS, attempts=3, resend=False, provider="carrier"
    )
    await bench.attempts.release(claims, "x", delay_ms=60_000)
    (another,) = await bench.claim(9)
    assert another.notification != claims[0].notification


async def test_a_provider_that_came_back_and_has_nothing_to_do_counts_as_closed_in_time(bench: Bench) -> None:
    await bench.opened()
    await bench.pass_rest()
    await bench.end(await bench.claim(), Health.UP)
    await bench.pass_rest()
    assert len(await bench.claim(100)) == 16


async def test_each_provider_rests_alone(bench: Bench) -> None:
    await bench.opened()
    claims = await bench.attempts.claim(
        Channel.SMS, "other", 100, lease_ms=LEASE_MS, attempts=3, resend=False, provider="another"
    )
    assert len(claims) == 17


async def test_opening_and_closing_are_said_once(bench: Bench) -> None:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="INFO")
    await bench.waiting(20)
    endings = await bench.end(await bench.claim(5), Health.DOWN)
    await bench.attempts.record(endings)
    await bench.pass_rest()
    for _ in range(3):
        await bench.end(await bench.claim(1), Health.UP)
    logger.remove(sink)
    opened, closed = lines
    assert opened.startswith("carrier rests until 20")
    assert opened.endswith(": 3 failures in a row on SMS")
    assert closed == "carrier answers again on SMS; what waited goes out"


async def test_with_no_failures_allowed_for_no_provider_rests(bench: Bench) -> None:
    never = Bench(bench.client, BreakerRules(0, 1, 1, 1))
    await never.waiting(30)
    await never.end(await never.claim(20), Health.DOWN)
    assert len(await never.claim(100)) == 10
    assert await bench.client.keys("t:breakers") == []


@pytest.mark.parametrize(("outcome", "health"), [
    (SENT, Health.UP),
    (DOWN, Health.DOWN),
    (Outcome(OutcomeKind.TEMPORARY, Reason.TIMEOUT), Health.DOWN),
    (Outcome(OutcomeKind.UNKNOWN, Reason.TIMEOUT), Health.DOWN),
    (Outcome(OutcomeKind.UNKNOWN, Reason.CONNECTION_LOST), Health.DOWN),
    (Outcome(OutcomeKind.UNKNOWN, Reason.INTERNAL), Health.UNSAID),
    (Outcome(OutcomeKind.TEMPORARY, Reason.RATE_LIMITED, retry_after_s=3), Health.DOWN),
    (Outcome(OutcomeKind.TEMPORARY, Reason.RATE_LIMITED), Health.UNSAID),
    (Outcome(OutcomeKind.TEMPORARY, Reason.REJECTED, code="451"), Health.UNSAID),
    (Outcome(OutcomeKind.TEMPORARY, Reason.LEASE_LOST), Health.UNSAID),
    (Outcome(OutcomeKind.PERMANENT, Reason.INVALID_ADDRESS, code="21211"), Health.UP),
    (Outcome(OutcomeKind.PERMANENT, Reason.INVALID_ADDRESS), Health.UNSAID),
    (Outcome(OutcomeKind.PERMANENT, Reason.NOT_CONFIGURED, code="401"), Health.UNSAID),
])  # fmt: skip
def test_what_an_outcome_says_of_the_provider(outcome: Outcome, health: Health) -> None:
    assert health_of(outcome) is health


@dataclass
class Model:
    """The breaker in ten lines of Python, to hold the script's to."""

    state: str = "closed"
    failures: int = 0
    level: int = 0
    room: int = 0
    rested: bool = True
    trials: set[int] = field(default_factory=set)

    def room_for(self, most: int) -> int:
        if self.state == "closed":
            return most
        if self.state == "open":
            return max(0, 1 - len(self.trials)) if self.rested else 0
        return max(0, min(most, self.room - len(self.trials)))

    def claimed(self, number: int) -> None:
        if self.state != "closed":
            self.trials.add(number)

    def ended(self, number: int, health: Health) -> None:
        trial = number in self.trials
        self.trials.discard(number)
        if health is Health.DOWN and (self.state == "closed" or trial):
            self.failures += 1
            if trial or self.failures >= RULES.failures:
                self.state, self.level, self.rested = "open", self.level + 1, False
                self.trials.clear()
        elif health is Health.UP and self.state == "closed":
            self.failures = 0
        elif health is Health.UP and trial:
            self.room = 2 if self.state == "open" else self.room + 1
            self.state, self.failures = "growing", 0
            if self.room > RULES.successes:
                self.state, self.level, self.room = "closed", 0, 0
                self.trials.clear()


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("claim"), st.integers(1, 4)),
            st.tuples(st.just("end"), st.sampled_from(list(Health)), st.integers(0, 9), st.booleans()),
            st.tuples(st.just("rested")),
        ),
        max_size=40,
    )
)
def test_the_script_does_as_the_model_says(steps: list[tuple[Any, ...]]) -> None:
    asyncio.run(_as_the_model(steps))


async def _as_the_model(steps: list[tuple[Any, ...]]) -> None:
    bench = Bench(fakeredis.FakeAsyncRedis(decode_responses=True))
    model, under_way, number = Model(), {}, 0
    await bench.waiting(100)
    for what, *rest in steps:
        if what == "claim":
            claims = await bench.claim(rest[0])
            assert len(claims) == min(model.room_for(rest[0]), rest[0])
            for claim in claims:
                number += 1
                under_way[number] = claim
                model.claimed(number)
        elif what == "end" and under_way:
            health, pick, again = rest
            chosen = sorted(under_way)[pick % len(under_way)]
            endings = await bench.end([under_way.pop(chosen)], health)
            model.ended(chosen, health)
            if again:
                await bench.attempts.record(endings)
        elif what == "rested" and model.state == "open":
            await bench.pass_rest()
            model.rested = True
        found = await bench.state()
        assert (found["state"], found["failures"]) == (model.state, model.failures)
    await bench.client.aclose()


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    """A store on fakeredis with a quick breaker."""
    async with store_without_postgres({"breaker.rest": "20ms", "breaker.cap": "60ms"}) as made:
        yield made


@pytest.mark.parametrize("outcome", [DOWN, Outcome(OutcomeKind.UNKNOWN, Reason.CONNECTION_LOST)])
async def test_while_a_provider_is_down_what_waits_behind_it_uses_up_no_attempt(store: Store, outcome: Outcome) -> None:
    """Of a hundred that wait, only those in whose time it went down and the trials are tried in vain."""
    up = False

    def answer(_: Message) -> Outcome:
        return SENT if up else outcome

    carrier = Carrier(answer, concurrency=4)
    retry = RetryRule(attempts=3, base_ms=1, cap_ms=1, jitter=0.0)
    sms = Lane(store, carrier, SendRules(retry, 60_000, resend_unknown=True), SendCounters(CollectorRegistry()))
    event = an_event(Step(Channel.SMS, 0))
    users = [f"u{n}" for n in range(100)]
    await store.profiles.keep_inline(event.id, people(*users), 60_000)
    await routed(store.flights, event, *users)
    async with asyncio.timeout(20):
        while len(carrier.got) < 14:
            await sms.run()
            await asyncio.sleep(0.005)
        in_vain = len(carrier.got)
        assert in_vain < 20
        up = True
        while len({message.user for message in carrier.got[in_vain:]}) < 100:
            await sms.run()
            await asyncio.sleep(0.005)
    await sms.close(2)
    ends = [status for _, status, _ in await told(store)]
    assert ends.count("SENT") == 100
    assert "DEAD" not in ends
    assert len(carrier.got) == 100 + ends.count("RETRYING")


async def test_a_trial_is_no_deliverys_last_attempt_while_another_waits(bench: Bench) -> None:
    await bench.waiting(1, priority=Priority.CRITICAL)
    for _ in range(2):
        (tired,) = await bench.claim()
        await bench.attempts.record([Ending(tired, Status.FAILED, {}, retry_in_ms=0)])
    await bench.waiting(2)
    await bench.client.hset(bench.keys.breakers, NAME, "open|3|1|1|0|0")
    tried = []
    for _ in range(3):
        (trial,) = await bench.claim(9)
        tried.append((trial.notification == tired.notification, trial.attempt))
        await bench.end([trial], Health.UNSAID)
    assert tried == [(False, 1), (False, 1), (True, 3)]
