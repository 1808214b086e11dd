"""Everything that can happen to events and deliveries, in any order, with crashes, lost and doubled messages, scripts
that are sent again and actors that wake late; the invariants of design §4 after each step, and the end when all is
quiet."""

import asyncio
import os
import random
from collections import Counter, defaultdict
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast
from uuid import UUID, uuid4

import fakeredis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.clock import Clock
from tests.scenes import an_event, chunk_of, people, route_chunk, routing
from tests.workbench import Bench
from tocsin.domain import ids
from tocsin.domain.delivery import OPEN, RANK, Channel, History, Reason, Status, merge, parse_key, shown_attempt
from tocsin.domain.event import Event
from tocsin.domain.plan import Priority, Step
from tocsin.storage.cancellations import Cancellation, Wanted
from tocsin.storage.flight_parts import Claim, Ending, OpenFlight, OpenStep
from tocsin.storage.gathered import gather
from tocsin.storage.people import People
from tocsin.storage.scripts import Scripts
from tocsin.storage.stops import Stops

T = TypeVar("T")

SOON_MS, LEASE_MS, ATTEMPTS = 1_000, 5_000, 3
PLANS = (
    (Step(Channel.IN_APP, 0), Step(Channel.SMS, SOON_MS), Step(Channel.EMAIL, 2 * SOON_MS)),
    (Step(Channel.EMAIL, 0), Step(Channel.SMS, 0)),
    (Step(Channel.SMS, 0), Step(Channel.IN_APP, SOON_MS), Step(Channel.SMS, SOON_MS)),
)
CHANNELS = (Channel.SMS, Channel.EMAIL)
LETTERS = {"W": Status.SCHEDULED, "Q": Status.QUEUED, "R": Status.RETRYING, "G": Status.SENDING}
RESENT_WITHIN_MS = 500_000
"""A client gives a call up after seconds; a Redis that was frozen does what it was sent when it wakes."""

RUNS = int(os.environ.get("TOCSIN_STATE_MACHINE_RUNS", "12"))
"""More find more: 300 take about five minutes."""

which = st.integers(0, 1_000)
rarely = st.sampled_from([False] * 4 + [True])
HAPPENINGS = tuple(
    name
    for name, often in {
        "post": 3, "fan_out": 2, "route": 2, "look_and_claim": 8, "begin": 8, "call_the_provider": 6,
        "record_that_it_was_sent": 3, "record_that_nobody_knows": 2, "record_that_it_was_refused": 3, "read": 1,
        "cancel": 1, "cancel_by_filter": 1, "lose_the_answer_of_a_beginning": 2, "release": 2, "time_goes_by": 6,
        "send_a_script_again": 6, "lose_a_flight_and_restore_it": 2,
    }.items()
    for _ in range(often)
)  # fmt: skip


class Noting(Scripts):
    """Remembers what was sent, so that it can be sent again."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.client, bench.keys)
        self.sent: list[tuple[str, tuple[object, ...]]] = []

    async def run(self, name: str, *arguments: object) -> Any:
        self.sent.append((name, arguments))
        return await super().run(name, *arguments)

    async def resend(self, name: str, arguments: tuple[object, ...]) -> None:
        await super().run(name, *arguments)


@dataclass
class World:
    """What people, providers and Postgres have seen."""

    events: list[Event] = field(default_factory=list)
    users: dict[UUID, tuple[str, ...]] = field(default_factory=dict)
    claimed: list[Claim] = field(default_factory=list)
    sending: list[tuple[Claim, int]] = field(default_factory=list)
    """With the time until which the provider may be called."""
    called: list[Claim] = field(default_factory=list)
    """Whose provider was called, and whose outcome is not recorded yet."""
    messages: Counter[tuple[UUID, int, int]] = field(default_factory=Counter)
    begun: dict[tuple[UUID, int, int], str] = field(default_factory=dict)
    quiet: set[UUID] = field(default_factory=set)
    """Notifications whose reading or withdrawal was answered."""


class Machine(RuleBasedStateMachine):
    """On fakeredis, whose clock the test moves."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.patch = pytest.MonkeyPatch()
        self.bench = Bench(self.connected())
        self.scripts = Noting(self.bench)
        self.bench.run_by(self.scripts)
        no_postgres = People(self.bench.flights, self.bench.profiles, cast(Any, None))
        self.stops = Stops(self.bench.client, self.bench.keys, self.scripts, self.bench.flights, no_postgres)
        self.world = World()
        self.random = random.Random(1)

    def connected(self) -> Any:
        self.clock = Clock(self.patch)
        return fakeredis.FakeAsyncRedis(decode_responses=True)

    def advance(self, ms: int) -> None:
        self.clock.advance(ms)

    def now_ms(self) -> int:
        return self.clock.now_ms

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def notes(self) -> list[tuple[Event, str, UUID]]:
        return [
            (event, user, ids.notification_id(event.id, user))
            for event in self.world.events
            for user in self.world.users[event.id]
        ]

    @rule(what=st.sampled_from(HAPPENINGS), place=which, flag=rarely)
    def something_happens(self, what: str, place: int, flag: bool) -> None:
        getattr(self, what)(place, flag)

    # What callers do.

    @initialize(plan=st.sampled_from(PLANS))
    def begin_with_an_event(self, plan: tuple[Step, ...]) -> None:
        self.accept(plan, 2, critical=False, whole=True)

    def post(self, place: int, flag: bool) -> None:
        if len(self.world.events) < 4:
            self.accept(PLANS[place % len(PLANS)], place % 3 + 1, critical=place % 5 == 0, whole=not flag)

    def accept(self, plan: tuple[Step, ...], count: int, critical: bool, whole: bool) -> None:
        priority = Priority.CRITICAL if critical else Priority.HIGH
        event = an_event(
            *plan, recipient_count=count, priority=priority, id=ids.event_id(self.now_ms(), self.random.randbytes(10))
        )
        self.world.events.append(event)
        self.world.users[event.id] = tuple(f"u{number}" for number in range(count))
        self.do(self.bench.flights.accept(event, people(*self.world.users[event.id]), None))
        if whole:
            self.do(self.bench.flights.take_page(event, "0"))
            self._route(event)

    def read(self, place: int, _: bool) -> None:
        _, user, note = _pick(self.notes(), place)
        (answer,) = self.do(self.bench.flights.read(user, [(note, True)]))
        assert answer.state in {"changed", "known"}
        self.world.quiet.add(note)

    def cancel(self, place: int, whole: bool) -> None:
        event = _pick(self.world.events, place)
        notes = [note for known, _, note in self.notes() if known is event]
        self.do(self.bench.flights.withdraw(event.id, notes if whole else []))
        self.world.quiet |= set(notes)

    def cancel_by_filter(self, place: int, alone: bool) -> None:
        """All that began up to an event, or one person's part of it."""
        event, user, _ = _pick(self.notes(), place)
        began_ms = ids.start_ms(event.id)
        wanted = Wanted(type=event.type, user=user if alone else None, to_ms=began_ms + 1)
        self.do(self.stops.begin(Cancellation(uuid4(), 1, "ops", "c1", "wrong", wanted)))
        found = [note for known, whose, note in self.notes() if ids.start_ms(known.id) <= began_ms and whose == user]
        whole = [note for known, _, note in self.notes() if ids.start_ms(known.id) <= began_ms]
        self.world.quiet |= set(found if alone else whole)

    # What actors do. A message that is doubled, lost or late is one of these calls made twice, never or late.

    def fan_out(self, place: int, flag: bool) -> None:
        self.do(self.bench.flights.take_page(_pick(self.world.events, place), str(int(flag))))

    def route(self, place: int, _: bool) -> None:
        self._route(_pick(self.world.events, place))

    def escalate(self) -> None:
        self.do(self.bench.flights.escalate(CHANNELS))

    def look_and_claim(self, place: int, dies: bool) -> None:
        self.escalate()
        for channel in CHANNELS:
            self.claim(channel, place % 4 + 1, dies)

    def claim(self, channel: Channel, most: int, dies: bool) -> None:
        claims = self.do(
            self.bench.attempts.claim(
                channel,
                self.random.randbytes(8).hex(),
                most,
                lease_ms=LEASE_MS,
                attempts=ATTEMPTS,
                resend=_resends(channel),
            )
        )
        assert not self.world.quiet & {claim.notification for claim in claims}, (
            "I5: claimed after its read was answered"
        )
        if not dies:
            self.world.claimed += claims

    def begin(self, place: int, dies: bool) -> None:
        if not self.world.claimed:
            return
        claim = _take(self.world.claimed, place)
        (may,) = self.do(self.bench.attempts.begin([claim], claim.token, lease_ms=LEASE_MS, detail={}))
        if not may:
            return
        assert claim.notification not in self.world.quiet, "I5: begun after its read was answered"
        holder = self.world.begun.setdefault(_attempt(claim), claim.token)
        assert holder == claim.token, "I4: begun by two"
        if not dies:
            self.world.sending.append((claim, self.now_ms() + LEASE_MS))

    def lose_the_answer_of_a_beginning(self, place: int, reached: bool) -> None:
        """The actor sends nothing, and says so."""
        if not self.world.claimed:
            return
        claim = _take(self.world.claimed, place)
        if reached:
            self.do(self.bench.attempts.begin([claim], claim.token, lease_ms=LEASE_MS, detail={}))
        self._record(claim, Status.FAILED, retry_in_ms=0)

    def release(self, place: int, later: bool) -> None:
        if self.world.claimed:
            claim = _take(self.world.claimed, place)
            self.do(self.bench.attempts.release([claim], claim.token, delay_ms=SOON_MS if later else 0))

    def call_the_provider(self, place: int, dies: bool) -> None:
        if not self.world.sending:
            return
        claim, until_ms = _take(self.world.sending, place)
        if self.now_ms() >= until_ms:
            # The actor was frozen meanwhile and sees that its lease does not outlast the call.
            self._record(claim, Status.FAILED, retry_in_ms=0)
            return
        self.world.messages[_attempt(claim)] += 1
        if not dies:
            self.world.called.append(claim)

    def record_that_it_was_sent(self, place: int, _: bool) -> None:
        if self.world.called:
            self._record(_take(self.world.called, place), Status.SENT)

    def record_that_nobody_knows(self, place: int, _: bool) -> None:
        if self.world.called:
            claim = _take(self.world.called, place)
            again = _resends(claim.channel) and claim.attempt % ATTEMPTS
            self._record(claim, Status.UNCERTAIN, retry_in_ms=SOON_MS if again else None)

    def record_that_it_was_refused(self, place: int, for_good: bool) -> None:
        if self.world.called:
            claim = _take(self.world.called, place)
            # What the provider refused is no message.
            self.world.messages[_attempt(claim)] -= 1
            again = not for_good and claim.attempt % ATTEMPTS
            self._record(claim, Status.FAILED, retry_in_ms=place % 2 * SOON_MS if again else None)

    # What goes wrong.

    def time_goes_by(self, place: int, leases_end: bool) -> None:
        self.advance(LEASE_MS if leases_end else place % 2 * SOON_MS + 1)

    def send_a_script_again(self, place: int, _: bool) -> None:
        name, arguments = self.scripts.sent[-1 - place % min(30, len(self.scripts.sent))]
        self.do(self.scripts.resend(name, arguments))

    def lose_a_flight_and_restore_it(self, place: int, _: bool) -> None:
        event, user, note = _pick(self.notes(), place)
        known = self.histories()
        self.do(self._lose(note))
        steps = [
            OpenStep(number, event.steps[number - 1].channel, status, attempt, self.now_ms() + LEASE_MS)
            for (noted, number), history in known.items()
            if noted == str(note)
            for attempt, status in [_newest(history)]
            if status in OPEN and shown_attempt(history)[1] in OPEN
        ]
        if steps:
            critical = event.priority is Priority.CRITICAL
            self.do(self.bench.flights.restore([OpenFlight(note, user, event.id, critical, 0, steps)]))

    # What holds.

    @invariant()
    def what_is_in_motion_is_in_the_index(self) -> None:
        """I1, in both directions."""
        wanted: dict[str, dict[str, int]] = defaultdict(dict)
        for note, (critical, steps) in self.flights().items():
            waiting = [step.time_ms for step in steps if step.status is Status.SCHEDULED]
            if waiting:
                wanted["t:due"][f"n:{note}"] = min(waiting)
            for step in steps:
                if step.status is not Status.SCHEDULED:
                    key = f"t:due:{step.channel}{':critical' if critical else ''}"
                    wanted[key][f"{note}:{step.number}"] = step.time_ms
        for channel in CHANNELS:
            for key in (f"t:due:{channel}", f"t:due:{channel}:critical"):
                assert self.index(key) == wanted[key]
        due = self.index("t:due")
        assert {entry: time for entry, time in due.items() if entry.startswith("n:")} == wanted["t:due"]

    @invariant()
    def what_is_not_fanned_out_is_due(self) -> None:
        """I2."""
        due = self.index("t:due")
        for event in self.world.events:
            fanned = self.do(self.bench.client.hget(self.bench.keys.event(event.id), "fanned"))
            assert (f"e:{event.id}" in due) == (fanned == "0")
            routed = self.do(self.bench.client.exists(self.bench.keys.chunk(event.id, 0))) == 0
            assert (f"c:{event.id}:0" in due) == (not routed)

    @invariant()
    def no_attempt_is_sent_twice(self) -> None:
        assert all(count <= 1 for count in self.world.messages.values())

    @invariant()
    def facts_say_what_redis_says(self) -> None:
        """A delivery in motion stands in Postgres where its attempt stands here; any other has ended."""
        moving = {(note, step.number): step for note, (_, steps) in self.flights().items() for step in steps}
        for place, history in self.histories().items():
            step = moving.pop(place, None)
            attempt, status = _newest(history)
            if step is None:
                assert status not in OPEN, (place, history)
            else:
                assert (attempt, status) == (step.attempt, step.status), (place, history)
        assert not moving

    def teardown(self) -> None:
        try:
            self._drive_to_quiet()
            self._all_is_final()
        finally:
            self.do(self.bench.client.aclose())
            self.loop.close()
            self.patch.undo()

    def _drive_to_quiet(self) -> None:
        for _ in range(60):
            for event in self.world.events:
                self.do(self.bench.flights.take_page(event, "0"))
                self._route(event)
            self.advance(LEASE_MS + 1)
            self.escalate()
            for channel in CHANNELS:
                self.claim(channel, 100, dies=False)
            while self.world.claimed:
                self.begin(0, dies=False)
            while self.world.sending:
                self.call_the_provider(0, dies=False)
            while self.world.called:
                self.record_that_it_was_sent(0, False)
            if not self.do(self.bench.leftovers()):
                return
        raise AssertionError(f"still in motion: {self.do(self.bench.leftovers())}")

    def _all_is_final(self) -> None:
        histories = self.histories()
        made = {(str(note), number) for event, _, note in self.notes() for number in range(1, len(event.steps) + 1)}
        assert set(histories) == made
        for (note, number), history in histories.items():
            _, shown = shown_attempt(history)
            assert shown not in OPEN
            attempts = sorted(
                n
                for (noted, step, n), count in self.world.messages.items()
                if count and (str(noted), step) == (note, number)
            )
            for attempt in attempts[:-1]:
                standing = {parse_key(place)[1] for place in history if parse_key(place)[0] == attempt}
                assert Status.UNCERTAIN in standing, "sent again though its outcome was known"
        self.what_is_in_motion_is_in_the_index()
        self.no_attempt_is_sent_twice()

    def _route(self, event: Event) -> None:
        if self.do(chunk_of(self.bench.flights, event, 0)):
            routings = [routing(event, user) for user in self.world.users[event.id]]
            self.do(route_chunk(self.bench.flights, event, 0, routings))

    def _record(self, claim: Claim, status: Status, retry_in_ms: int | None = None) -> None:
        reason = Reason.TIMEOUT if retry_in_ms is not None else None
        self.do(self.bench.attempts.record([Ending(claim, status, {}, retry_in_ms=retry_in_ms, retry_reason=reason)]))

    async def _lose(self, note: UUID) -> None:
        text = str(note)
        await self.bench.client.hdel(f"t:flight:{text[:18]}", text[19:])
        for key in await self.bench.client.keys("t:due*"):
            for entry in await self.bench.client.zrange(key, 0, -1):
                if text in entry:
                    await self.bench.client.zrem(key, entry)

    def index(self, key: str) -> dict[str, int]:
        return {entry: int(score) for entry, score in self.do(self.bench.client.zrange(key, 0, -1, withscores=True))}

    def histories(self) -> dict[tuple[str, int], History]:
        """What Postgres would hold now, by notification and step."""
        rows = gather([("", self.do(self.bench.facts()))])
        return {place: row.history for place, row in rows.deliveries.items()}

    def flights(self) -> dict[str, tuple[bool, list[OpenStep]]]:
        """What is in motion, by notification: whether it is critical, and its steps; one that is claimed and has not
        begun stands where it stood before."""
        found = {}
        for key in self.do(self.bench.client.keys("t:flight:*")):
            for rest, text in self.do(self.bench.client.hgetall(key)).items():
                _, _, critical, _, steps = text.split("|")
                made = [_step(*part.split(",")) for part in steps.split(";")]
                found[f"{key.removeprefix('t:flight:')}-{rest}"] = critical == "1", made
        return found


def _step(number: str, channel: str, letter: str, attempt: str, time: str, token: str) -> OpenStep:
    if letter == "A":
        letter = "Q" if attempt == "1" else "R"
    return OpenStep(int(number), Channel(channel), LETTERS[letter], int(attempt), int(time))


def _newest(history: History) -> tuple[int, Status]:
    """The last attempt, and where it stands."""
    places = [parse_key(place)[:2] for place in merge([history])]
    return max(places, key=lambda place: (place[0], RANK[place[1]]))


def _attempt(claim: Claim) -> tuple[UUID, int, int]:
    return claim.notification, claim.step, claim.attempt


def _resends(channel: Channel) -> bool:
    return channel is Channel.EMAIL


def _pick(some: list[T], place: int) -> T:
    return some[place % len(some)]


def _take(some: list[T], place: int) -> T:
    return some.pop(place % len(some))


def test_whatever_happens_every_delivery_ends_once() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Machine,
        settings=settings(
            max_examples=RUNS, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
