"""The checks of the torture run can fail: each is fed a lie, which it has to find, and the truth."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.torture.checks import check_all, check_one
from tests.torture.evidence import Delivery, Evidence, History, Key, StoredEvent
from tests.torture.ledger import Accepted, Call, Fault, Ledger, OptOut, Receipt, Repeat
from tests.torture.moods import ACCEPT, BAD, Mood
from tests.torture.options import options_of

EVENT = "01a1fea4-0000-7000-8000-000000000001"
NOTE = "01a1fea4-0000-8000-8000-0000000000aa"
FAR = "01a1fea4-0000-8000-8000-0000000000fa"
MAIL = "01a1fea4-0000-8111-8000-000000000001"
SMS = "01a1fea4-0000-8111-8000-000000000002"
LATER = "01a1fea4-0000-8111-8000-000000000003"
BEGAN = 1_000_000
"""When the first attempts began; everything else is told from here."""

Lie = Callable[[Evidence], object]


def the_truth() -> Evidence:
    """An event of one person: a mail that was sent twice because nobody knew, an SMS that arrived, and, two hours off,
    another mail."""
    ledger = Ledger()
    ledger.accepted[EVENT] = Accepted(EVENT, "postgres", BEGAN - 500, 1, "key")
    ledger.calls = [
        Call("EMAIL", MAIL, 1, "a@b.test", BEGAN + 5, BEGAN + 5, "nothing", "m1"),
        Call("EMAIL", MAIL, 2, "a@b.test", BEGAN + 4_005, BEGAN + 4_005, "yes", "m2"),
        Call("SMS", SMS, 1, "+14155550123", BEGAN + 6, BEGAN + 6, "yes", "SM1"),
    ]
    ledger.receipts = [Receipt(SMS, 1, "delivered", BEGAN + 900)]
    ledger.reads[NOTE] = BEGAN + 5_000
    ledger.cancels[EVENT] = BEGAN + 5_100
    ledger.opt_outs = [OptOut("ann", "EMAIL", BEGAN + 5_000, BEGAN + 9_000)]
    ledger.repeats = [Repeat(EVENT, EVENT, "postgres", BEGAN)]
    mailed: History = {
        "1:QUEUED": {"at": BEGAN - 100},
        "1:SENDING": {"at": BEGAN},
        "1:UNCERTAIN": {"at": BEGAN + 30, "reason": "connection_lost"},
        "2:RETRYING": {"at": BEGAN + 30},
        "2:SENDING": {"at": BEGAN + 4_000},
        "2:SENT": {"at": BEGAN + 4_010, "provider_id": "m2"},
    }
    texted: History = {
        "1:SENDING": {"at": BEGAN},
        "1:SENT": {"at": BEGAN + 20},
        "1:DELIVERED:delivered": {"at": BEGAN + 900},
    }
    rows = [
        Delivery(MAIL, NOTE, EVENT, "ann", "EMAIL", 1, "SENT", None, BEGAN, "m2", mailed),
        Delivery(SMS, NOTE, EVENT, "ann", "SMS", 2, "DELIVERED", None, BEGAN, "SM1", texted),
        Delivery(LATER, NOTE, EVENT, "ann", "EMAIL", 3, "SCHEDULED", None, BEGAN + 7_200_000, None, {}),
    ]
    evidence = Evidence(ledger, BEGAN + 60_000)
    evidence.events = {EVENT: StoredEvent(EVENT, "COMPLETED", "event.approval", 3, False, True, BEGAN - 510, True)}
    evidence.notifications = {EVENT: 1}
    evidence.deliveries = {row.id: row for row in rows}
    evidence.flights = {NOTE: f"ann|{EVENT}|0|0|3,EMAIL,W,1,{BEGAN + 7_200_000},"}
    evidence.rebuilt = dict(evidence.flights)
    evidence.due = {f"n:{NOTE}": BEGAN + 7_200_000.0}
    evidence.keys = [Key("tocsin:due", "zset", -1, 1), Key(f"tocsin:flight:{NOTE[:18]}", "hash", -1, 1)]
    ledger.faults = [Fault("kill_redis", "redis", BEGAN - 9_000, BEGAN - 8_000)]
    evidence.losses = [("rolled_back", BEGAN - 7_000)]
    stored = {"SENT": 1, "DELIVERED": 1, "SCHEDULED": 1}
    evidence.api_counts = {EVENT: (stored | {"FAILED": 0}, stored)}
    return evidence


def row(evidence: Evidence, delivery: str, **changes: object) -> None:
    """Another row in the delivery's place."""
    evidence.deliveries[delivery] = replace(evidence.deliveries[delivery], **changes)  # type: ignore[arg-type]


def told(evidence: Evidence, delivery: str, **facts: int) -> None:
    """More in the delivery's history: SENDING_3=… is attempt 3's."""
    more = {f"{name.split('_')[1]}:{name.split('_')[0]}": {"at": at} for name, at in facts.items()}
    row(evidence, delivery, history=evidence.deliveries[delivery].history | more)


def untold(evidence: Evidence, delivery: str, *places: str) -> None:
    history = evidence.deliveries[delivery].history
    row(evidence, delivery, history={place: fact for place, fact in history.items() if place not in places})


def called(evidence: Evidence, delivery: str, attempt: int, channel: str = "EMAIL", *, to: str = "a@b.test") -> None:
    evidence.ledger.calls.append(Call(channel, delivery, attempt, to, BEGAN, BEGAN, "yes", f"{channel}{attempt}"))


LIES: list[tuple[str, str, Lie]] = [
    ("an accepted event is gone", "every accepted event is in Postgres", lambda e: e.events.clear()),
    (
        "an event is not fanned out",
        "every stored event is fanned out, to everybody, in full",
        lambda e: e.events.update({EVENT: replace(e.events[EVENT], status="PROCESSING")}),
    ),
    (
        "a notification is missing",
        "every stored event is fanned out, to everybody, in full",
        lambda e: e.notifications.clear(),
    ),
    (
        "a delivery is missing",
        "every stored event is fanned out, to everybody, in full",
        lambda e: e.deliveries.pop(SMS),
    ),
    (
        "a delivery never ended",
        "every delivery is final, or its time is far off",
        lambda e: row(e, MAIL, status="SENDING"),
    ),
    (
        "a step that is due never started",
        "every delivery is final, or its time is far off",
        lambda e: row(e, LATER, scheduled_ms=BEGAN),
    ),
    (
        "a repeated request made another event",
        "the same Idempotency-Key was one event",
        lambda e: e.ledger.repeats.append(Repeat(EVENT, "another", "postgres", BEGAN)),
    ),
    (
        "a key has two events",
        "no event was stored twice under one Idempotency-Key",
        lambda e: e.events.update({EVENT: replace(e.events[EVENT], has_key=False)}),
    ),
    (
        "a flight is gone",
        "I1 what is open is in the time index, and the index holds nothing else",
        lambda e: e.flights.clear(),
    ),
    (
        "a flight fell out of the index",
        "I1 what is open is in the time index, and the index holds nothing else",
        lambda e: e.due.clear(),
    ),
    (
        "a flight comes later than its step",
        "I1 what is open is in the time index, and the index holds nothing else",
        lambda e: e.due.update({f"n:{NOTE}": BEGAN + 9_000_000.0}),
    ),
    (
        "a started step is in no channel",
        "I1 what is open is in the time index, and the index holds nothing else",
        lambda e: e.flights.update({NOTE: f"ann|{EVENT}|0|0|3,EMAIL,Q,1,{BEGAN},"}),
    ),
    (
        "what has ended is in flight",
        "I1 what is open is in the time index, and the index holds nothing else",
        lambda e: row(e, LATER, status="CANCELLED"),
    ),
    (
        "an entry of the index has no flight",
        "I1 what is open is in the time index, and the index holds nothing else",
        lambda e: e.due.update({f"n:{FAR}": 1.0}),
    ),
    (
        "an entry of a channel has no flight",
        "I1 what is open is in the time index, and the index holds nothing else",
        lambda e: e.in_channels.update({f"{FAR}:1": 1.0}),
    ),
    ("an event is still in due", "I2 no event and no chunk is left half done", lambda e: e.due.update({"e:x": 1.0})),
    (
        "a chunk is left",
        "I2 no event and no chunk is left half done",
        lambda e: e.keys.append(Key("tocsin:chunk:x:0", "list", 5, 1)),
    ),
    ("the journal is not empty", "I3 the journal is empty and no fact was refused", lambda e: setattr(e, "facts", 3)),
    ("a fact was refused", "I3 the journal is empty and no fact was refused", lambda e: e.bad_facts.append("1-0: why")),
    ("an attempt was brought twice", "I4 one claim at a time", lambda e: called(e, SMS, 1, "SMS", to="+14155550123")),
    ("two attempts overlapped", "I4 one claim at a time", lambda e: told(e, MAIL, UNCERTAIN_1=BEGAN + 4_500)),
    ("an attempt came out of nowhere", "I4 one claim at a time", lambda e: untold(e, MAIL, "1:UNCERTAIN")),
    ("a claim came after a read", "I5 nothing was claimed after", lambda e: e.ledger.reads.update({NOTE: BEGAN - 1})),
    (
        "a retry came after a read",
        "I5 nothing was claimed after",
        lambda e: e.ledger.reads.update({NOTE: BEGAN + 3_999}),
    ),
    ("a flight was not rebuilt", "I6 what Postgres has open", lambda e: setattr(e, "rebuilt", {})),
    (
        "a flight was rebuilt for another time",
        "I6 what Postgres has open",
        lambda e: setattr(e, "rebuilt", {NOTE: f"ann|{EVENT}|0|0|3,EMAIL,W,1,{BEGAN},"}),
    ),
    (
        "a claim came after a cancel",
        "nothing was claimed after an answered cancel",
        lambda e: e.ledger.cancels.update({EVENT: BEGAN + 3_000}),
    ),
    (
        "a key is left over",
        "nothing left in Redis that nothing will remove",
        lambda e: e.keys.append(Key("tocsin:recipients:x", "list", -1, 9)),
    ),
    (
        "an empty flight's bucket is left over",
        "nothing left in Redis that nothing will remove",
        lambda e: e.keys.append(Key("tocsin:flight:01a1fea4-1111-8000", "hash", -1, 1)),
    ),
    ("a message came twice", "one message a delivery", lambda e: untold(e, MAIL, "1:UNCERTAIN")),
    (
        "a held SMS was sent again",
        "one message a delivery",
        lambda e: (called(e, SMS, 2, "SMS", to="+14155550123"), told(e, SMS, UNCERTAIN_1=BEGAN + 20)),
    ),
    ("a message that nobody knows", "every message belongs to an attempt", lambda e: called(e, FAR, 1)),
    ("an attempt that is not told", "every message belongs to an attempt", lambda e: called(e, MAIL, 3)),
    (
        "one was sent to somebody who was opted out",
        "none to somebody who had switched the channel off",
        lambda e: e.ledger.opt_outs.append(OptOut("ann", "EMAIL", BEGAN - 5, BEGAN + 5)),
    ),
    (
        "SENT, and nobody took it",
        "statuses equal the providers' logs",
        lambda e: [setattr(call, "accepted_ms", None) for call in e.ledger.calls],
    ),
    ("FAILED, and somebody took it", "statuses equal the providers' logs", lambda e: row(e, SMS, status="FAILED")),
    ("a wrong provider id", "statuses equal the providers' logs", lambda e: row(e, SMS, provider_id="SM9")),
    (
        "a look-up did not find what was taken",
        "what was looked up at the provider is true",
        lambda e: e.deliveries[SMS].history.update({"1:UNCERTAIN": {"at": BEGAN + 50, "reason": "not_found"}}),
    ),
    ("a sum is wrong", "sums equal the providers' logs", lambda e: row(e, SMS, status="DEAD")),
    (
        "the API counts otherwise",
        "sums equal the providers' logs",
        lambda e: e.api_counts[EVENT][0].update({"SENT": 2}),
    ),
    (
        "Redis was rebuilt for nothing",
        "Redis was taken for lost only where",
        lambda e: e.losses.append(("rolled_back", BEGAN + 20_000)),
    ),
    ("a receipt does not show", "every receipt that was taken shows", lambda e: row(e, SMS, status="SENT")),
]


def searched(evidence: Evidence) -> Evidence:
    """A third attempt at the mail that was not found at the provider, nor was it there."""
    history = evidence.deliveries[MAIL].history | {"3:UNCERTAIN": {"at": BEGAN + 9_000, "reason": "not_found"}}
    row(evidence, MAIL, history=history)
    return evidence


def test_of_the_truth_no_check_says_anything() -> None:
    for check in check_all(searched(the_truth())):
        assert not check.wrong, check
        assert check.looked_at, f"{check.name} looked at nothing"


@pytest.mark.parametrize(("check", "lie"), [(name, lie) for _, name, lie in LIES], ids=[each[0] for each in LIES])
def test_a_lie_is_found(check: str, lie: Lie) -> None:
    evidence = the_truth()
    lie(evidence)
    name = next(each.name for each in check_all(evidence) if each.name.startswith(check))
    assert check_one(evidence, name).wrong


def test_every_check_is_fed_a_lie() -> None:
    fed = {name for _, name, _ in LIES}
    assert not [each.name for each in check_all(the_truth()) if not each.name.startswith(tuple(fed))]


def test_an_event_that_only_an_emptied_redis_had_is_counted_apart() -> None:
    evidence = the_truth()
    evidence.ledger.accepted["lost"] = Accepted("lost", "redis", BEGAN, 1, "key")
    assert check_one(evidence, "every accepted event is in Postgres").wrong
    evidence.ledger.faults.append(Fault("empty_redis", "redis", BEGAN + 10, BEGAN + 11))
    again = check_one(evidence, "every accepted event is in Postgres")
    assert (len(again.wrong), len(again.apart)) == (0, 1)


def test_a_mandatory_type_passes_an_opt_out() -> None:
    evidence = the_truth()
    evidence.ledger.opt_outs.append(OptOut("ann", "EMAIL", BEGAN - 5, BEGAN + 5))
    evidence.events[EVENT] = replace(evidence.events[EVENT], mandatory=True)
    assert not check_one(evidence, "none to somebody who had switched the channel off").wrong


def test_moods_take_most_and_bad_ones_little() -> None:
    import random

    mood = Mood(random.Random(1))
    usual = sum(mood.draw() == ACCEPT for _ in range(1_000))
    mood.shares = BAD["refuses"]
    bad = sum(mood.draw() == ACCEPT for _ in range(1_000))
    assert usual > 850
    assert bad < 120


def test_a_seed_repeats_the_schedule() -> None:
    from tests.torture.faults import WEIGHTS, schedule

    asked = options_of({"TORTURE_SEED": "7"})
    once, again = (schedule(asked.seed, asked.seconds, asked.fault_every_s, asked.without) for _ in range(2))
    assert once == again
    assert once != schedule(8, asked.seconds, asked.fault_every_s, asked.without)
    assert len(once) >= 200
    assert {each.kind for each in once} == set(WEIGHTS)


def test_a_key_that_nobody_could_know_is_counted_apart() -> None:
    name = "no event was stored twice under one Idempotency-Key, answered or not"
    for faults, apart in (
        ([Fault("empty_redis", "redis", BEGAN - 9_000, BEGAN - 9_000)], 1),
        ([Fault("kill_http", "http1", BEGAN - 9_000, BEGAN - 8_000)], 1),
        ([Fault("kill_http", "http1", BEGAN - 90_000, BEGAN - 8_000)], 0),
        ([Fault("stop_http", "http1", BEGAN - 9_000, BEGAN - 8_000)], 0),
    ):
        evidence = the_truth()
        evidence.events[EVENT] = replace(evidence.events[EVENT], has_key=False)
        evidence.ledger.faults += faults
        assert len(check_one(evidence, name).apart) == apart


JOURNEY = "every message belongs to an attempt that the journey tells"
ONE = "one message a delivery, or more only where the journey says uncertain and it is sent again"


def lost_with_its_process(*faults: Fault) -> Evidence:
    """The mail's first attempt was told to Redis while Postgres was away, and Redis was emptied; what is known since is
    that nobody knows. Its second and third went out, one in each life of Redis, as attempt 2."""
    evidence = the_truth()
    evidence.postgres_away = [(BEGAN - 1_000, BEGAN + 8_000)]
    evidence.ledger.faults += [Fault("empty_redis", "redis", BEGAN + 8_000, BEGAN + 8_100), *faults]
    evidence.ledger.calls.append(Call("EMAIL", MAIL, 2, "a@b.test", BEGAN + 20_000, BEGAN + 20_000, "yes", "m3"))
    history: History = {
        "1:QUEUED": {"at": BEGAN + 19_000},
        "1:UNCERTAIN": {"at": BEGAN + 19_000, "reason": "redis_lost"},
        "2:SENDING": {"at": BEGAN + 20_000},
        "2:SENT": {"at": BEGAN + 20_010, "provider_id": "m3"},
    }
    row(evidence, MAIL, history=history, provider_id="m3")
    return evidence


@pytest.mark.parametrize("kill", ["kill_actors", "skew_actors"])
def test_what_only_a_killed_process_could_have_told_is_counted_apart(kill: str) -> None:
    killed = lost_with_its_process(Fault(kill, "actors1", BEGAN + 6_000, BEGAN + 7_000))
    found = check_one(killed, ONE)
    assert (found.wrong, len(found.apart)) == ([], 1)
    assert check_one(lost_with_its_process(), ONE).wrong
    for evidence in (killed, lost_with_its_process()):
        row(evidence, SMS, history={"1:QUEUED": {"at": BEGAN - 10}})
    assert not check_one(killed, JOURNEY).wrong
    assert check_one(killed, JOURNEY).apart


def test_a_message_that_a_living_process_must_have_told_of_is_wrong() -> None:
    evidence = lost_with_its_process(Fault("kill_actors", "actors1", BEGAN - 6_000, BEGAN - 5_000))
    row(evidence, SMS, history={"1:QUEUED": {"at": BEGAN - 10}})
    assert check_one(evidence, JOURNEY).wrong
    assert check_one(evidence, ONE).wrong
