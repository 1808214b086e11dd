"""A provider is given no more messages than its rate allows, whatever number of processes send, and no fewer."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import fakeredis
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from tests.clock import Clock
from tests.scenes import an_event, routed
from tests.test_lanes import Carrier, lane, run_until, sms_to, store, told  # noqa: F401  # a fixture among them
from tests.workbench import LEASE_MS, Bench
from tocsin.actors.metrics import Gauges
from tocsin.channels.contract import Limited, rate_of
from tocsin.channels.registry import build_senders, context_of
from tocsin.channels.twilio import TwilioSettings
from tocsin.cli.check_rates import judge_rates
from tocsin.cli.findings import Level
from tocsin.domain.delivery import Channel
from tocsin.domain.errors import SettingError
from tocsin.domain.plan import Priority, Step
from tocsin.domain.rate import Rate
from tocsin.domain.settings import load
from tocsin.storage.flight_parts import Claim
from tocsin.storage.rates import Bucket, Rates
from tocsin.storage.redis import connect
from tocsin.storage.store import Store

NAME = "t:rate:SMS:carrier"


class Rated(Bench):
    """Claims for a provider that has a rate."""

    def __init__(self, client: Any, rate: Rate) -> None:
        super().__init__(client)
        self.rate = rate
        self.rates = Rates(client, self.keys)
        self._tokens = 0

    async def waiting(self, count: int, **given: Any) -> None:
        await routed(self.flights, an_event(Step(Channel.SMS, 0), **given), *(f"u{n}" for n in range(count)))

    async def take(self, most: int = 100, *, token: str | None = None, lease_ms: int = LEASE_MS) -> list[Claim]:
        self._tokens += 1
        return await self.attempts.claim(
            Channel.SMS, token or f"t{self._tokens}", most, lease_ms=lease_ms, attempts=3, resend=False,
            provider="carrier", rate=self.rate,
        )  # fmt: skip

    async def give_back(self, claims: Sequence[Claim]) -> None:
        await self.attempts.release(claims, claims[0].token, rate=self.rate)

    async def bucket(self) -> Bucket:
        (bucket,) = await self.rates.buckets([(Channel.SMS, "carrier", self.rate)])
        return bucket

    async def called(self) -> bool:
        calls, _ = await self.flights.escalate([Channel.SMS], {Channel.SMS: "carrier"}, {Channel.SMS: self.rate})
        return calls == ["s:SMS"]


@pytest.fixture
def clock() -> Iterator[Clock]:
    with pytest.MonkeyPatch.context() as patch:
        yield Clock(patch)


@pytest.fixture
def bench(clock: Clock) -> Rated:
    """Ten a second, three at once."""
    return Rated(fakeredis.FakeAsyncRedis(decode_responses=True), Rate(10.0, 3))


async def test_no_more_begin_than_the_burst_and_then_as_many_as_flow_in(bench: Rated, clock: Clock) -> None:
    await bench.waiting(20)
    assert len(await bench.take()) == 3
    assert await bench.take() == []
    assert await bench.bucket() == Bucket(0, 100)
    clock.advance(99)
    assert await bench.take() == []
    clock.advance(1)
    assert len(await bench.take()) == 1
    clock.advance(250)
    assert len(await bench.take()) == 2
    clock.advance(50)
    assert len(await bench.take()) == 1, "the half that was left over counts"


async def test_nobody_is_called_who_could_claim_nothing_and_everybody_when_tokens_come(
    bench: Rated, clock: Clock
) -> None:
    await bench.waiting(10)
    assert await bench.called()
    await bench.take()
    assert not await bench.called()
    clock.advance(100)
    assert await bench.called()


async def test_what_is_critical_has_the_first_tokens(bench: Rated) -> None:
    await bench.waiting(5)
    await bench.waiting(2, priority=Priority.CRITICAL)
    critical = {claim.event for claim in await bench.take(2)}
    assert len(critical) == 1
    (other,) = await bench.take()
    assert other.event not in critical


async def test_what_did_not_begin_gives_its_tokens_back_once(bench: Rated, clock: Clock) -> None:
    await bench.waiting(10)
    claims = await bench.take()
    await bench.give_back(claims)
    await bench.give_back(claims)
    assert len(await bench.take()) == 3
    assert await bench.take() == []


async def test_tokens_of_a_claim_whose_lease_ended_are_not_given_back(bench: Rated, clock: Clock) -> None:
    await bench.waiting(10)
    claims = await bench.take(lease_ms=200)
    clock.advance(201)
    again = await bench.take()
    await bench.give_back(claims)
    assert len(again) == 2
    assert await bench.take() == []


async def test_a_claim_that_is_sent_again_takes_nothing_more(bench: Rated, clock: Clock) -> None:
    await bench.waiting(10)
    first = await bench.take(2, token="lost")
    assert await bench.take(2, token="lost") == first
    assert (await bench.bucket()).tokens == 1


async def test_what_could_not_be_claimed_costs_nothing(bench: Rated) -> None:
    await bench.take()
    await bench.waiting(1)
    await bench.take()
    assert (await bench.bucket()).tokens == 2


async def test_a_clock_that_is_set_back_stops_nothing_for_long(bench: Rated, clock: Clock) -> None:
    await bench.waiting(10)
    await bench.take()
    clock.advance(-3_600_000)
    assert await bench.take() == []
    clock.advance(100)
    # What had been claimed by the later clock is not ready by this one; the bucket is.
    assert (await bench.bucket()).wait_ms <= 100


async def test_nothing_is_left_of_a_provider_that_is_at_rest(bench: Rated, clock: Clock) -> None:
    await bench.waiting(3)
    claims = await bench.take()
    clock.advance(310)
    assert not await bench.client.exists(NAME)
    assert await bench.client.exists(f"t:taken:{claims[0].token}")
    clock.advance(LEASE_MS)
    assert not await bench.client.keys("t:taken:*")


@hypothesis_settings(deadline=None, max_examples=15)
@given(
    per_s=st.sampled_from([0.5, 3.0, 10.0, 33.3, 1_000.0]),
    burst=st.integers(1, 12),
    steps=st.lists(
        st.tuples(st.sampled_from([0, 1, 7, 90, 333, 1_000, 5_000]), st.integers(1, 15), st.integers(0, 5)),
        min_size=3,
        max_size=14,
    ),
)
def test_in_no_window_do_more_begin_than_flow_in_and_the_burst(
    per_s: float, burst: int, steps: list[tuple[int, int, int]]
) -> None:
    """Whatever is claimed, handed back, late, and sent again."""

    async def check(clock: Clock) -> None:
        bench = Rated(fakeredis.FakeAsyncRedis(decode_responses=True), Rate(per_s, burst))
        for _ in range(2):
            await bench.waiting(100)
        held: list[list[Claim]] = []
        began: dict[tuple[Any, str], int] = {}
        for wait_ms, most, back in steps:
            clock.advance(wait_ms)
            claims = await bench.take(most)
            assert await bench.take(most, token=claims[0].token) == claims if claims else True
            began |= {(claim.notification, claim.token): clock.now_ms for claim in claims}
            held.append(claims)
            if back and (early := held.pop(0)[:back]):
                await bench.give_back(early)
                await bench.give_back(early)
                for claim in early:
                    del began[claim.notification, claim.token]
        times = sorted(began.values())
        for first, start in enumerate(times):
            for last, end in enumerate(times[first:], first):
                assert last - first + 1 <= bench.rate.per_1000_s * (end - start) / 1e6 + burst

    with pytest.MonkeyPatch.context() as patch:
        asyncio.run(check(Clock(patch)))


async def test_a_provider_gets_all_that_its_rate_allows(clock: Clock) -> None:
    bench = Rated(fakeredis.FakeAsyncRedis(decode_responses=True), Rate(33.3, 4))
    await bench.waiting(100)
    begun = 0
    for _ in range(100):
        begun += len(await bench.take())
        clock.advance(10)
    assert begun == 36


# In a process.


def limited(carrier: Carrier, rate: Rate) -> Carrier:
    carrier.rate = rate  # type: ignore[attr-defined]
    assert isinstance(carrier, Limited)
    return carrier


async def test_a_lane_comes_back_by_itself_as_tokens_come(store: Store) -> None:  # noqa: F811
    await sms_to(store, *(f"u{n}" for n in range(6)))
    carrier = limited(Carrier(), Rate(200.0, 2))
    sms = lane(store, carrier)
    await sms.run()
    async with asyncio.timeout(5):
        while len(carrier.got) < 6:  # noqa: ASYNC110  # what is waited for knows no event
            await asyncio.sleep(0.002)
    await sms.close(1)
    assert [status for _, status, _ in await told(store)].count("SENT") == 6


async def test_two_processes_share_one_rate(redis_url: str) -> None:
    client = connect(redis_url)
    one, two = (Rated(client, Rate(5.0, 2)) for _ in range(2))
    two._tokens = 100
    await one.waiting(10)
    begun = [len(await each.take(1)) for each in (one, two, one, two)]
    assert begun == [1, 1, 0, 0]
    await client.aclose()


test_two_processes_share_one_rate = pytest.mark.servers(test_two_processes_share_one_rate)


async def test_a_sender_that_is_not_configured_has_no_rate() -> None:
    settings = load({}).with_values({"sms.twilio.rate": 5})
    senders = build_senders(settings, context_of(settings, sandbox=False))
    assert rate_of(senders[Channel.SMS]) is None


@pytest.mark.parametrize(
    ("path", "value", "mend"),
    [
        ("sms.twilio.rate", 0, "greater than or equal to 0.001"),
        ("push.fcm.rate", -3, "greater than or equal to 0.001"),
        ("email.smtp.rate", "quick", "number"),
        ("email.smtp.rate", "nan", "less"),
        ("email.smtp.burst", 4, "set rate with it"),
        ("email.smtp.burst", 0, "greater than or equal to 1"),
    ],
)
async def test_a_wrong_rate_is_named_with_its_mend(path: str, value: Any, mend: str) -> None:
    settings = load({}).with_values({path: value})
    with pytest.raises(SettingError, match=mend) as refused:
        build_senders(settings, context_of(settings, sandbox=False))
    assert str(refused.value).startswith(path.rpartition(".")[0])


@pytest.mark.parametrize(("rate", "burst"), [(0.5, 1), (10, 1), (11, 2), (1_000, 100)])
def test_where_no_burst_is_set_it_is_a_tenth_of_a_second(rate: float, burst: int) -> None:
    assert TwilioSettings(rate=rate).limit == Rate(rate, burst)


async def test_the_figures_say_what_a_provider_is_given(store: Store) -> None:  # noqa: F811
    registry, rate = CollectorRegistry(), Rate(2.5, 4)
    gauges = Gauges(registry, {Channel.SMS: "carrier"}, {Channel.SMS: rate})
    await gauges.refresh(store)
    labels = {"channel": "SMS", "provider": "carrier"}
    assert registry.get_sample_value("tocsin_rate_limit", labels) == 2.5
    assert registry.get_sample_value("tocsin_rate_tokens", labels) == 4


def test_the_doctor_says_what_a_rate_makes_wait() -> None:
    limits = [(Channel.SMS, "twilio", Rate(1.0, 1)), (Channel.EMAIL, "smtp", Rate(50.0, 5))]
    slow, fine = judge_rates(limits, {Channel.SMS: 7_200, Channel.EMAIL: 10})
    assert slow.level is Level.WARN
    assert "7200" in slow.told
    assert "2 h" in slow.told
    assert "sms.twilio.rate" in slow.mend
    assert fine.level is Level.OK
