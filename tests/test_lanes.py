"""How a process carries claims to a provider: none holds another, and every outcome ends where it should."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any
from uuid import UUID

import pytest
from loguru import logger
from prometheus_client import CollectorRegistry
from redis.exceptions import ResponseError

from tests.scenes import an_event, people, routed
from tests.workbench import store_without_postgres
from tocsin.actors import claims, recorder
from tocsin.actors.fan_out import fan_out
from tocsin.actors.messages import messages_for
from tocsin.actors.metrics import SendCounters, StoredCounters
from tocsin.actors.outcomes import SendRules
from tocsin.actors.route import route
from tocsin.actors.runtime import Runtime
from tocsin.actors.send import Lane
from tocsin.channels.contract import BuildContext, Message, Outcome, OutcomeKind
from tocsin.domain.delivery import Channel, Reason
from tocsin.domain.errors import RedisAway, SettingError
from tocsin.domain.event import Event
from tocsin.domain.plan import Step
from tocsin.domain.retry import RetryRule
from tocsin.domain.settings import load
from tocsin.storage.flight_parts import Ending
from tocsin.storage.store import Store

SENT = Outcome(OutcomeKind.SENT, provider_id="x")
Answer = Callable[[Message], Outcome]


class Carrier:
    """A provider's sender whose answers the test decides."""

    channel = Channel.SMS
    provider = "carrier"
    timeout_s = 0.5

    def __init__(self, answer: Answer | None = None, *, concurrency: int = 4, configured: bool = True) -> None:
        self.configured = configured
        self.concurrency = concurrency
        self.got: list[Message] = []
        self.held: set[str] = set()
        self.gate = asyncio.Event()
        self._answer = answer or (lambda _: SENT)

    async def send(self, message: Message) -> Outcome:
        self.got.append(message)
        if message.user in self.held:
            await self.gate.wait()
        return self._answer(message)

    async def check(self) -> None: ...

    async def close(self) -> None: ...


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    """A store on fakeredis whose Postgres does not answer: everything needed is cached or inline."""
    async with store_without_postgres() as made:
        yield made


def lane(
    store: Store,
    carrier: Carrier,
    *,
    resend: bool = False,
    attempts: int = 3,
    lease_ms: int = 60_000,
    registry: CollectorRegistry | None = None,
) -> Lane:
    retry = RetryRule(attempts=attempts, base_ms=1, cap_ms=1, jitter=0.0)
    rules = SendRules(retry=retry, lease_ms=lease_ms, resend_unknown=resend)
    return Lane(store, carrier, rules, SendCounters(registry or CollectorRegistry()))


async def sms_to(store: Store, *users: str) -> None:
    event = an_event(Step(Channel.SMS, 0))
    await store.profiles.keep_inline(event.id, people(*users), 60_000)
    await routed(store.flights, event, *users)


async def told(store: Store) -> list[tuple[int, str, str | None]]:
    """(attempt, status, reason) of every move so far."""
    entries = await store.facts.take("test", 1_000)
    return [
        (move[3], move[4], move[7].get("reason"))
        for _, facts in entries
        for fact in facts
        if fact["f"] == "moved"
        for move in fact["d"]
    ]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # what is waited for knows no event
            await asyncio.sleep(0.005)


async def run_until(lane: Lane, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await lane.run()
            await asyncio.sleep(0.005)


async def test_a_slow_one_holds_nobody(store: Store) -> None:
    carrier = Carrier(concurrency=2)
    carrier.held = {"slow"}
    await sms_to(store, "slow", *(f"u{n}" for n in range(20)))
    sms = lane(store, carrier)
    await run_until(sms, lambda: len(carrier.got) == 21)
    carrier.gate.set()
    await sms.close(2)
    assert [status for _, status, _ in await told(store)].count("SENT") == 21


async def test_no_more_is_claimed_than_can_start(store: Store) -> None:
    carrier = Carrier(concurrency=3)
    carrier.held = {f"u{n}" for n in range(10)}
    await sms_to(store, *carrier.held)
    sms = lane(store, carrier)
    running = asyncio.create_task(sms.run())
    await until(lambda: len(carrier.got) == 3)
    others = await store.attempts.claim(Channel.SMS, "other", 100, lease_ms=60_000, attempts=3, resend=False)
    assert (len(carrier.got), len(others)) == (3, 7)
    carrier.gate.set()
    await running
    await sms.close(2)


async def test_a_temporary_failure_is_tried_three_times_and_then_dead(store: Store) -> None:
    carrier = Carrier(lambda _: Outcome(OutcomeKind.TEMPORARY, Reason.PROVIDER_DOWN))
    await sms_to(store, "u1")
    sms = lane(store, carrier)
    await run_until(sms, lambda: len(carrier.got) == 3)
    await sms.close(2)
    assert [message.attempt for message in carrier.got] == [1, 2, 3]
    assert {message.delivery for message in carrier.got} == {carrier.got[0].delivery}
    ends = [(attempt, status) for attempt, status, _ in await told(store) if status != "SENDING"]
    assert ends == [(1, "FAILED"), (2, "RETRYING"), (2, "FAILED"), (3, "RETRYING"), (3, "DEAD")]


async def test_a_permanent_failure_is_not_tried_again(store: Store) -> None:
    carrier = Carrier(lambda _: Outcome(OutcomeKind.PERMANENT, Reason.INVALID_ADDRESS))
    await sms_to(store, "u1")
    sms = lane(store, carrier)
    await run_until(sms, lambda: len(carrier.got) == 1)
    await sms.close(2)
    assert (await told(store))[-1] == (1, "FAILED", "invalid_address")


@pytest.mark.parametrize(("resend", "attempts"), [(False, [1]), (True, [1, 2, 3])])
async def test_an_unknown_outcome_is_held_or_sent_again_as_the_channel_says(
    store: Store, resend: bool, attempts: list[int]
) -> None:
    carrier = Carrier(lambda _: Outcome(OutcomeKind.UNKNOWN, Reason.CONNECTION_LOST))
    await sms_to(store, "u1")
    sms = lane(store, carrier, resend=resend)
    await run_until(sms, lambda: len(carrier.got) == len(attempts))
    await sms.close(2)
    assert [message.attempt for message in carrier.got] == attempts
    uncertain = [attempt for attempt, status, _ in await told(store) if status == "UNCERTAIN"]
    assert uncertain == attempts


async def test_a_provider_that_never_answers_is_uncertain_after_its_time(store: Store) -> None:
    carrier = Carrier()
    carrier.timeout_s = -0.5
    carrier.held = {"u1"}
    await sms_to(store, "u1")
    sms = lane(store, carrier)
    await run_until(sms, lambda: len(carrier.got) == 1)
    await sms.close(5)
    assert (await told(store))[-1] == (1, "UNCERTAIN", "timeout")


async def test_a_sender_that_raises_is_a_defect_whose_outcome_nobody_knows(store: Store) -> None:
    def raising(_: Message) -> Outcome:
        raise ZeroDivisionError

    carrier = Carrier(raising)
    await sms_to(store, "u1")
    sms = lane(store, carrier)
    await run_until(sms, lambda: len(carrier.got) == 1)
    await sms.close(2)
    assert (await told(store))[-1] == (1, "UNCERTAIN", "internal")


async def test_without_credentials_nothing_is_sent_and_it_is_said(store: Store) -> None:
    carrier = Carrier(configured=False)
    await sms_to(store, "u1")
    sms = lane(store, carrier, registry=(registry := CollectorRegistry()))
    await sms.run()
    await sms.close(2)
    assert carrier.got == []
    assert await told(store) == [(1, "FAILED", "not_configured")]
    labels = {"channel": "SMS", "provider": "carrier", "status": "FAILED", "reason": "not_configured"}
    assert registry.get_sample_value("tocsin_attempts_total", labels) == 1


async def test_retries_and_what_is_cancelled_are_counted_as_they_are_stored(store: Store) -> None:
    carrier = Carrier(lambda _: Outcome(OutcomeKind.TEMPORARY, Reason.PROVIDER_DOWN))
    await sms_to(store, "u1")
    sms = lane(store, carrier)
    await run_until(sms, lambda: len(carrier.got) == 2)
    await sms.close(2)
    await store.flights.read("u1", [(carrier.got[0].notification, True)])
    counters = StoredCounters(registry := CollectorRegistry())
    counters.stored(await store.facts.take("test", 1_000))
    value = registry.get_sample_value
    assert value("tocsin_retries_total", {"channel": "SMS", "reason": "provider_down"}) == 2
    assert value("tocsin_cancelled_total", {"channel": "SMS", "reason": "read"}) == 1


async def test_who_lost_the_address_meanwhile_is_suppressed(store: Store) -> None:
    event = an_event(Step(Channel.SMS, 0))
    await routed(store.flights, event, "u1")
    await store.profiles.keep_inline(event.id, [people("u1")[0].model_copy(update={"phone": None})], 60_000)
    carrier = Carrier()
    sms = lane(store, carrier)
    await sms.run()
    await sms.close(2)
    assert (carrier.got, await told(store)) == ([], [(1, "SUPPRESSED", "no_address")])


async def test_what_lacks_data_waits_without_using_up_an_attempt(store: Store) -> None:
    await routed(store.flights, an_event(Step(Channel.SMS, 0)), "stored-in-postgres-only")
    carrier = Carrier()
    sms = lane(store, carrier)
    await sms.run()
    await sms.close(2)
    assert (carrier.got, await told(store)) == ([], [])
    assert (await store.depths()).open[Channel.SMS] == 1


async def test_a_claim_that_would_begin_after_its_lease_is_not_begun_and_keeps_its_attempt(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    carrier = Carrier()
    carrier.timeout_s = -1.95
    await sms_to(store, "u1")
    sms, events = lane(store, carrier, lease_ms=60), store.events

    async def late(wanted: Any) -> Any:
        await asyncio.sleep(0.1)
        return await events(wanted)

    monkeypatch.setattr(store, "events", late)
    await sms.run()
    await sms.close(2)
    assert (carrier.got, await told(store)) == ([], [])
    (claim,) = await store.attempts.claim(Channel.SMS, "other", 1, lease_ms=60_000, attempts=3, resend=False)
    assert claim.attempt == 1


async def test_a_lease_that_a_send_could_outlive_is_refused(store: Store) -> None:
    with pytest.raises(SettingError, match=r"actors\.lease"):
        lane(store, Carrier(), lease_ms=2_000)


async def test_a_claim_that_fails_unexpectedly_leaves_the_channel_working(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    carrier = Carrier()
    await sms_to(store, "u1")
    sms = lane(store, carrier)
    with monkeypatch.context() as patch:
        patch.setattr(store.attempts, "claim", refusing)
        with pytest.raises(ResponseError):
            await sms.run()
    await run_until(sms, lambda: len(carrier.got) == 1)
    await sms.close(2)


async def test_what_a_claim_starts_while_the_process_stops_is_waited_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    carrier = Carrier()
    carrier.held = {"u1"}
    await sms_to(store, "u1")
    sms = lane(store, carrier)
    begin, begins, go_on = store.attempts.begin, asyncio.Event(), asyncio.Event()

    async def slowly(*claims: Any, **rules: Any) -> list[bool]:
        begins.set()
        await go_on.wait()
        return await begin(*claims, **rules)

    monkeypatch.setattr(store.attempts, "begin", slowly)
    await sms.run()
    await begins.wait()
    closing = asyncio.create_task(sms.close(5))
    await asyncio.sleep(0)
    go_on.set()
    await until(lambda: bool(carrier.got))
    carrier.gate.set()
    await closing
    assert (await told(store))[-1] == (1, "SENT", None)


async def test_a_run_that_waits_for_room_ends_when_the_process_stops(store: Store) -> None:
    carrier = Carrier(concurrency=1)
    carrier.held = {"u1", "u2"}
    carrier.timeout_s = 30
    await sms_to(store, "u1", "u2")
    sms = lane(store, carrier)
    running = asyncio.create_task(sms.run())
    await until(lambda: bool(carrier.got))
    await asyncio.wait_for(sms.close(0.1), 3)
    await asyncio.wait_for(running, 1)


async def test_a_claim_whose_answer_was_lost_is_carried_all_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    carrier = Carrier()
    await sms_to(store, "u1", "u2")
    sms = lane(store, carrier)
    claim, tokens = store.attempts.claim, []

    async def unheard_at_first(channel: Channel, token: str, most: int, **rules: Any) -> Any:
        tokens.append(token)
        claims = await claim(channel, token, most, **rules)
        if len(tokens) <= 2:
            raise RedisAway("the answer was lost")
        return claims

    monkeypatch.setattr(claims, "_AWAY_S", 0.01)
    monkeypatch.setattr(store.attempts, "claim", unheard_at_first)
    await sms.run()  # nobody calls a second time: of what is claimed nothing may start
    await until(lambda: len(carrier.got) == 2)
    await sms.close(2)
    assert [status for _, status, _ in await told(store)].count("SENT") == 2
    assert len(set(tokens[:3])) == 1
    assert tokens[3] != tokens[2]


async def test_of_a_claim_whose_answer_was_lost_no_more_is_carried_than_there_is_room_for_by_then(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sms_to(store, "u1", "u2", "u3")
    sms = lane(store, Carrier())
    claim = store.attempts.claim

    async def unheard(channel: Channel, token: str, most: int, **rules: Any) -> Any:
        await claim(channel, token, most, **rules)
        raise RedisAway("the answer was lost")

    monkeypatch.setattr(sms._claims, "_see_to_unanswered", lambda: None)
    monkeypatch.setattr(store.attempts, "claim", unheard)
    assert await sms._claims.take(3) == []
    monkeypatch.setattr(store.attempts, "claim", claim)
    first = await sms._claims.take(1)
    await until(lambda: not sms._under_way)
    assert len({each.user for each in (*first, *await sms._claims.take(3))}) == 3
    assert len(first) == 1
    await sms.close(2)


async def test_what_is_handed_back_while_redis_is_away_is_free_as_soon_as_it_is_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sms_to(store, "u1")
    sms = lane(store, Carrier())
    release, tries = store.attempts.release, 0

    async def away_at_first(*claims: Any, **rules: Any) -> None:
        nonlocal tries
        tries += 1
        if tries <= 2:
            raise RedisAway("no")
        await release(*claims, **rules)

    monkeypatch.setattr(claims, "_AWAY_S", 0.01)
    monkeypatch.setattr(store.attempts, "release", away_at_first)
    await sms._claims.hand_back(await sms._claims.take(1))
    assert len(await sms._claims.take(1)) == 1
    await sms.close(2)


async def test_only_sends_that_had_begun_count_as_broken_off(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    carrier = Carrier(concurrency=1)
    carrier.held, carrier.timeout_s = {"u1", "u2"}, 30
    await sms_to(store, "u1")
    sms = lane(store, carrier)
    waiting = asyncio.create_task(sms.run())  # for room, once it has sent one
    async with asyncio.timeout(5):
        while not carrier.got:  # noqa: ASYNC110  # the other end is in another task
            await asyncio.sleep(0.005)
    other = lane(store, carrier)
    await sms_to(store, "u2")
    begins = asyncio.Event()

    async def never(*_: Any, **__: Any) -> list[bool]:
        begins.set()
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(store.attempts, "begin", never)
    running = asyncio.create_task(other.run())
    await begins.wait()
    said: list[str] = []
    sink = logger.add(lambda message: said.append(message.record["message"]), level="WARNING")
    await asyncio.gather(sms.close(0.05), other.close(0.05))
    await asyncio.gather(waiting, running)
    logger.remove(sink)
    assert said == ["1 sends on SMS were broken off; they will show as uncertain"]


async def test_what_a_broken_off_send_starts_as_it_ends_is_waited_for_and_not_broken_off(store: Store) -> None:
    ends: list[str] = []
    carrier = Carrier()
    carrier.timeout_s = 30

    async def leaves() -> None:
        try:
            await asyncio.sleep(0.02)
            ends.append("left")
        except asyncio.CancelledError:
            ends.append("interrupted")

    async def stalling(message: Message) -> Outcome:
        carrier.got.append(message)
        try:
            await asyncio.Event().wait()
        finally:
            await leaves()
            sms._start(leaves())
        return SENT

    carrier.send = stalling  # type: ignore[method-assign]
    await sms_to(store, "u1")
    sms = lane(store, carrier)
    await sms.run()
    await until(lambda: bool(carrier.got))
    await sms.close(0.01)
    assert ends == ["left", "left"]


async def test_a_lane_that_does_not_end_in_order_keeps_no_other_from_it(store: Store) -> None:
    ended: list[str] = []

    class Ends(Carrier):
        async def close(self) -> None:
            ended.append(self.provider)
            if self.provider == "bad":
                raise ZeroDivisionError
            await asyncio.sleep(0.02)
            ended.append("in order")

    bad, good = Ends(), Ends()
    bad.provider = "bad"
    settings = load({})
    context = BuildContext(False, None, "Tocsin", None, {})
    runtime = Runtime(settings, store.postgres, context, CollectorRegistry())
    runtime._lanes = {Channel.SMS: lane(store, bad), Channel.PUSH: lane(store, good)}
    await runtime._close_lanes(0.1)
    assert sorted(ended) == ["bad", "carrier", "in order"]


async def test_what_others_forget_meanwhile_is_still_known_to_who_asked(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sms_to(store, "u1")
    made = await store.attempts.claim(Channel.SMS, "t", 1, lease_ms=9_000, attempts=3, resend=False)
    known: dict[UUID, Event] = {}
    assert len(await messages_for(store, made, known)) == len(known) == 1
    reached = store.people.reached

    async def meanwhile(*wanted: Any) -> Any:
        known.clear()
        return await reached(*wanted)

    monkeypatch.setattr(store.people, "reached", meanwhile)
    assert len(await messages_for(store, made, known)) == 1


async def test_what_was_late_by_our_own_doing_says_nothing_of_the_provider(store: Store) -> None:
    def frozen(_: Message) -> Outcome:
        carrier.timeout_s = -3.0  # as if more had passed than a call may take
        return Outcome(OutcomeKind.UNKNOWN, Reason.TIMEOUT)

    carrier = Carrier(frozen)
    await sms_to(store, "u1")
    sms = lane(store, carrier)
    await run_until(sms, lambda: len(carrier.got) == 1)
    await sms.close(2)
    assert (await told(store))[-1] == (1, "UNCERTAIN", "timeout")
    assert await store._client.hgetall("tocsin:breakers") == {}


@pytest.mark.parametrize("work", ["fan_out", "routing"])
async def test_work_that_failed_as_redis_went_away_ends_without_an_error(
    store: Store, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    async def away(*_: Any, **__: Any) -> bool:
        raise RedisAway("no")

    event = an_event(Step(Channel.SMS, 0))
    monkeypatch.setattr(store.flights, "event", refusing)
    monkeypatch.setattr(store.flights, "back_off", away)
    await (fan_out(store, str(event.id)) if work == "fan_out" else route(store, str(event.id), 0))


async def test_the_persister_is_called_at_once_and_once_more_for_all_that_came_meanwhile(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "_TELL_S", 0.4)
    monkeypatch.setattr(recorder, "_GATHER_S", 0.0)
    sms = lane(store, carrier := Carrier())
    record, recorded, calls = store.attempts.record, 0, []

    async def counted(endings: Sequence[Ending]) -> list[bool]:
        nonlocal recorded
        recorded += len(endings)
        return await record(endings)

    async def called() -> None:
        calls.append(recorded)

    monkeypatch.setattr(store.attempts, "record", counted)
    monkeypatch.setattr(store, "nudge_persister", called)
    for number in range(1, 6):
        await sms_to(store, f"u{number}")
        await run_until(sms, lambda number=number: recorded == number)  # type: ignore[misc]
    await until(lambda: calls[-1] == 5)
    await sms.close(2)
    assert (calls[0], len(carrier.got)) == (1, 5)
    assert calls == sorted(set(calls)), "none without something new"


async def test_outcomes_are_recorded_though_the_persister_cannot_be_called(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    carrier = Carrier(concurrency=1)
    await sms_to(store, "u1", "u2")
    sms = lane(store, carrier)

    async def away() -> None:
        raise RedisAway("no")

    monkeypatch.setattr(store, "nudge_persister", away)
    await run_until(sms, lambda: len(carrier.got) == 2)
    await sms.close(2)
    assert [status for _, status, _ in await told(store)].count("SENT") == 2


async def test_an_outcome_that_cannot_be_recorded_holds_up_no_other(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = [f"u{number}" for number in range(8)]
    await sms_to(store, *users)
    sms = lane(store, carrier := Carrier(concurrency=8))
    record, sizes = store.attempts.record, []

    async def not_of_u3(endings: Sequence[Ending]) -> list[bool]:
        if any(ending.claim.user == "u3" for ending in endings):
            raise ResponseError("WRONGTYPE Operation against a key")
        sizes.append(len(endings))
        return await record(endings)

    monkeypatch.setattr(store.attempts, "record", not_of_u3)
    await run_until(sms, lambda: len(carrier.got) == 8)
    await until(lambda: sum(sizes) == 7)
    await sms_to(store, *(f"v{number}" for number in range(8)))
    sizes.clear()
    await run_until(sms, lambda: len(carrier.got) == 16)
    await until(lambda: sum(sizes) == 8)
    assert max(sizes) > 1, "others are recorded together as before"
    await sms.close(0.1)
    assert [status for _, status, _ in await told(store)].count("SENT") == 15


async def test_outcomes_are_kept_when_recording_fails_unexpectedly(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sms_to(store, "u1")
    sms = lane(store, carrier := Carrier())
    record, tries = store.attempts.record, 0

    async def at_first_refused(endings: Sequence[Ending]) -> list[bool]:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ResponseError("WRONGTYPE Operation against a key")
        return await record(endings)

    monkeypatch.setattr(store.attempts, "record", at_first_refused)
    await run_until(sms, lambda: len(carrier.got) == 1)
    await sms.close(3)
    assert (await told(store))[-1] == (1, "SENT", None)


async def refusing(*claims: Any, **rules: Any) -> Any:
    raise ResponseError("WRONGTYPE Operation against a key")


async def test_a_call_that_the_clock_made_goes_on_under_the_events_correlation_id(store: Store) -> None:
    users = [f"u{number}" for number in range(201)]
    event = an_event(Step(Channel.SMS, 0), cid="cid-7", recipient_count=len(users))
    await store.flights.accept(event, people(*users), None)
    await fan_out(store, str(event.id))
    client: Any = store._client
    messages = await client.hvals("tocsin:dramatiq:route.msgs")
    assert [json.loads(message)["options"]["cid"] for message in messages] == ["cid-7", "cid-7"]
