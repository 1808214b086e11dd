"""What must be true at the end of a run, whatever was done to it: the invariants of docs/reliability.md.

Each check looks at the evidence alone and answers what is wrong; tests/torture/test_checks.py feeds each a lie.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.torture.evidence import OPEN, RESENT, Delivery, Evidence, Key
from tests.torture.ledger import Call

TAKEN = frozenset({"SENT", "DELIVERED", "BOUNCED"})
NOT_TAKEN = frozenset({"FAILED", "DEAD", "CANCELLED", "SUPPRESSED"})

_NOTICED_MS = 15_000
"""How long after something was done to Redis a loss may be noticed, on a slow machine."""


@dataclass(slots=True)
class Check:
    """One check's result. `wrong` pairs what it is about (a delivery's or an event's id, or '') with what is wrong;
    `apart` is what is explained by what nobody can prevent, and counted."""

    name: str
    group: str
    looked_at: int = 0
    wrong: list[tuple[str, str]] = field(default_factory=list)
    apart: list[tuple[str, str]] = field(default_factory=list)


Rule = Callable[[Evidence, Check], None]
_RULES: list[tuple[str, str, Rule]] = []


def rule(group: str, name: str) -> Callable[[Rule], Rule]:
    def register(check: Rule) -> Rule:
        _RULES.append((group, name, check))
        return check

    return register


def check_all(evidence: Evidence) -> list[Check]:
    """Every check, in the order in which they stand here."""
    return [check_one(evidence, name) for _, name, _ in _RULES]


def check_one(evidence: Evidence, name: str) -> Check:
    group, _, look = next(each for each in _RULES if each[1] == name)
    check = Check(name, group)
    look(evidence, check)
    return check


# What was accepted is there and came to its end.


@rule("kept", "every accepted event is in Postgres")
def accepted_is_stored(evidence: Evidence, check: Check) -> None:
    for event in evidence.ledger.accepted.values():
        check.looked_at += 1
        if event.id in evidence.events:
            continue
        told = f"answered 202 ({event.durability}) at {event.answered_ms}, and Postgres does not have it"
        emptied = event.durability == "redis" and evidence.emptied_after(event.answered_ms) is not None
        (check.apart if emptied else check.wrong).append((event.id, told))


@rule("kept", "every stored event is fanned out, to everybody, in full")
def fanned_out(evidence: Evidence, check: Check) -> None:
    rows = Counter(delivery.event for delivery in evidence.deliveries.values())
    for event in evidence.events.values():
        check.looked_at += 1
        accepted = evidence.ledger.accepted.get(event.id)
        made = evidence.notifications.get(event.id, 0)
        if event.status != "COMPLETED":
            check.wrong.append((event.id, f"it is {event.status}"))
        elif accepted and made != accepted.recipients:
            check.wrong.append((event.id, f"{made} notifications for {accepted.recipients} recipients"))
        elif rows[event.id] != made * event.steps:
            check.wrong.append((event.id, f"{rows[event.id]} deliveries for {made} people and {event.steps} steps"))


@rule("kept", "every delivery is final, or its time is far off")
def all_final(evidence: Evidence, check: Check) -> None:
    for delivery in evidence.deliveries.values():
        check.looked_at += 1
        if delivery.status in OPEN and not delivery.is_far(evidence.at_ms):
            check.wrong.append((delivery.id, f"it is {delivery.status}"))


@rule("kept", "the same Idempotency-Key was one event")
def done_once(evidence: Evidence, check: Check) -> None:
    for repeat in evidence.ledger.repeats:
        check.looked_at += 1
        if repeat.event == repeat.answered:
            continue
        first = evidence.ledger.accepted[repeat.event]
        emptied_ms = evidence.emptied_after(first.answered_ms)
        # Redis had forgotten, and Postgres was away, or had not heard of it either.
        forgotten = emptied_ms is not None and emptied_ms <= repeat.answered_ms
        told = f"repeated ({repeat.durability}) at {repeat.answered_ms}, it was another: {repeat.answered}"
        unknowable = forgotten and "redis" in (first.durability, repeat.durability)
        (check.apart if unknowable else check.wrong).append((repeat.event, told))


# I1 to I6.


@rule("invariants", "I1 what is open is in the time index, and the index holds nothing else")
def indexed(evidence: Evidence, check: Check) -> None:
    open_steps = {f"{d.notification}:{d.step}": d for d in evidence.deliveries.values() if d.status in OPEN}
    in_flight = dict(_steps_in_flight(evidence.flights))
    for member, delivery in open_steps.items():
        check.looked_at += 1
        if member not in in_flight:
            check.wrong.append((delivery.id, f"{delivery.status} in Postgres, and Redis has no flight of it"))
    for member, (notification, letter, time) in in_flight.items():
        check.looked_at += 1
        if member not in open_steps:
            check.wrong.append((notification, f"step {member} is in flight ({letter}), and Postgres has it not open"))
        elif letter == "W" and evidence.due.get(f"n:{notification}", float("inf")) > time:
            check.wrong.append((notification, f"step {member} waits until {time} and is not in due"))
        elif letter != "W" and member not in evidence.in_channels:
            check.wrong.append((notification, f"step {member} has started ({letter}) and is in no channel"))
    strays = {name for name in evidence.due if name.startswith("n:") and name[2:] not in evidence.flights}
    check.wrong += [("", f"{name} is in due and has no flight") for name in sorted(strays)]
    check.wrong += [
        ("", f"{name} is in a channel, not in flight") for name in evidence.in_channels if name not in in_flight
    ]


@rule("invariants", "I2 no event and no chunk is left half done")
def none_half_done(evidence: Evidence, check: Check) -> None:
    check.looked_at = len(evidence.due)
    check.wrong += [("", f"{name} is still in due") for name in evidence.due if not name.startswith("n:")]
    check.wrong += [("", f"{key.name} is left") for key in evidence.keys if key.name.startswith("tocsin:chunk:")]


@rule("invariants", "I3 the journal is empty and no fact was refused")
def all_told(evidence: Evidence, check: Check) -> None:
    check.looked_at = evidence.facts + len(evidence.bad_facts) + 1
    if evidence.facts:
        check.wrong.append(("", f"{evidence.facts} entries wait in the journal"))
    check.wrong += [("", f"bad fact {fact[:300]}") for fact in evidence.bad_facts]


@rule("invariants", "I4 one claim at a time: no attempt was brought twice, none began before the one before had ended")
def one_at_a_time(evidence: Evidence, check: Check) -> None:
    brought = Counter((call.delivery, call.attempt, call.to) for call in evidence.ledger.calls)
    check.looked_at = len(brought)
    for (delivery, attempt, _), count in brought.items():
        if count > 1:
            told = f"attempt {attempt} was brought to the provider {count} times"
            (check.apart if _is_owned_up_to(evidence, delivery, attempt) else check.wrong).append((delivery, told))
    for delivery_row in evidence.deliveries.values():
        for attempt in delivery_row.attempts[1:]:
            began = delivery_row.at(attempt, "SENDING")
            ended = [delivery_row.at(attempt - 1, status) for status in ("UNCERTAIN", "FAILED", "DEAD", "SENT")]
            over = [time for time in ended if time is not None]
            if began is not None and (not over or min(over) > began):
                before = [call for call in evidence.calls_of(delivery_row.id) if call.attempt == attempt - 1]
                lost = not over and any(map(evidence.told_to_the_dead, before))
                told = f"attempt {attempt} began before attempt {attempt - 1} had ended"
                (check.apart if lost else check.wrong).append((delivery_row.id, told))


@rule("invariants", "I5 nothing was claimed after an answered read")
def none_after_read(evidence: Evidence, check: Check) -> None:
    reads = evidence.ledger.reads
    for delivery in _sent_ones(evidence):
        read_ms = reads.get(delivery.notification)
        if read_ms is not None:
            check.looked_at += 1
            _no_claim_after(evidence, check, delivery, read_ms, "its read was answered")


@rule("invariants", "I6 what Postgres has open is in motion again once Redis was emptied")
def rebuilt(evidence: Evidence, check: Check) -> None:
    check.looked_at = len(evidence.flights)
    if evidence.rebuilt is None:
        return
    before, after = (dict(_steps_in_flight(flights)) for flights in (evidence.flights, evidence.rebuilt))
    for member, (notification, letter, time) in before.items():
        if after.get(member) != (notification, letter, time):
            told = f"step {member} was {letter} at {time}, and after the rebuild {after.get(member, 'nothing')}"
            check.wrong.append((notification, told))
    check.wrong += [("", f"step {member} came out of nothing") for member in sorted(after.keys() - before.keys())]


@rule("invariants", "nothing was claimed after an answered cancel")
def none_after_cancel(evidence: Evidence, check: Check) -> None:
    for delivery in _sent_ones(evidence):
        cancelled_ms = evidence.ledger.cancels.get(delivery.event)
        if cancelled_ms is not None:
            check.looked_at += 1
            _no_claim_after(evidence, check, delivery, cancelled_ms, "its event's cancel was answered")


@rule("invariants", "nothing left in Redis that nothing will remove")
def no_leftovers(evidence: Evidence, check: Check) -> None:
    for key in evidence.keys:
        check.looked_at += 1
        if not _may_stay(key, evidence):
            check.wrong.append(("", f"{key.name} ({key.type}, {key.size} entries, no end)"))


# What providers count for themselves.


@rule("providers", "one message a delivery, or more only where the journey says uncertain and it is sent again")
def one_message(evidence: Evidence, check: Check) -> None:
    for delivery in evidence.deliveries.values():
        by_device: dict[str, list[Call]] = {}
        for call in evidence.calls_of(delivery.id):
            if call.accepted_ms is not None:
                by_device.setdefault(call.to, []).append(call)
        for taken in by_device.values():
            check.looked_at += 1
            earlier = sorted(call.attempt for call in taken)[:-1]
            unexplained = [
                number
                for number in earlier
                if number not in delivery.uncertain and not _is_owned_up_to(evidence, delivery.id, number)
            ]
            if unexplained or (earlier and delivery.channel not in RESENT):
                check.wrong.append(
                    (delivery.id, f"taken {len(taken)} times, in attempts {sorted(c.attempt for c in taken)}")
                )
            elif earlier:
                check.apart.append((delivery.id, f"taken {len(taken)} times, and the journey says uncertain"))


@rule("providers", "every message belongs to an attempt that the journey tells")
def journeys_tell(evidence: Evidence, check: Check) -> None:
    for call in evidence.ledger.calls:
        check.looked_at += 1
        delivery = evidence.deliveries.get(call.delivery)
        if delivery is None:
            lost = _may_be_lost(evidence, call.delivery)
            (check.apart if lost else check.wrong).append((call.delivery, "Postgres does not know this delivery"))
        elif not any(
            delivery.at(call.attempt, status) for status in ("SENDING", "UNCERTAIN", *TAKEN, "FAILED", "DEAD")
        ):
            told = f"attempt {call.attempt} reached the provider and is not in the journey"
            (check.apart if evidence.told_to_the_dead(call) else check.wrong).append((delivery.id, told))


@rule("providers", "none to somebody who had switched the channel off")
def none_opted_out(evidence: Evidence, check: Check) -> None:
    by_user: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for each in evidence.ledger.opt_outs:
        by_user.setdefault((each.user, each.channel), []).append((each.from_ms, each.until_ms))
    for delivery in _sent_ones(evidence):
        spans = by_user.get((delivery.user, delivery.channel), ())
        event = evidence.events.get(delivery.event)
        if not spans or event is None or event.mandatory:
            continue
        check.looked_at += 1
        for attempt in delivery.attempts:
            began = delivery.at(attempt, "SENDING")
            if began is not None and any(since < began < until for since, until in spans):
                check.wrong.append((delivery.id, f"attempt {attempt} was claimed at {began}, switched off then"))


@rule("providers", "statuses equal the providers' logs")
def statuses_agree(evidence: Evidence, check: Check) -> None:
    for delivery in evidence.deliveries.values():
        if delivery.channel == "IN_APP":
            continue
        check.looked_at += 1
        taken = [call for call in evidence.calls_of(delivery.id) if call.accepted_ms is not None]
        if delivery.status in TAKEN and not taken:
            check.wrong.append((delivery.id, f"{delivery.status}, and the provider took none"))
        elif delivery.status in NOT_TAKEN and taken:
            lost = _is_lost(evidence, delivery)
            told = f"{delivery.status}, and the provider took {len(taken)}"
            (check.apart if lost else check.wrong).append((delivery.id, told))
        elif delivery.status in TAKEN and delivery.provider_id not in {call.provider_id for call in taken}:
            check.wrong.append((delivery.id, f"its provider id {delivery.provider_id} is none of the provider's"))


@rule("providers", "what was looked up at the provider is true")
def looked_up(evidence: Evidence, check: Check) -> None:
    for delivery in evidence.deliveries.values():
        missed = [fact for fact in delivery.history.values() if fact.get("reason") == "not_found"]
        if missed:
            check.looked_at += 1
            asked_ms = max(fact["at"] for fact in missed)
            taken = [call for call in evidence.calls_of(delivery.id) if (call.accepted_ms or asked_ms) < asked_ms]
            numbers = {place.split(":")[0] for place, fact in delivery.history.items() if fact in missed}
            if any(str(call.attempt) in numbers for call in taken):
                check.wrong.append((delivery.id, "not found by a look-up, and the provider had taken it"))


@rule("providers", "sums equal the providers' logs, and what the API says")
def sums_agree(evidence: Evidence, check: Check) -> None:
    for channel in ("EMAIL", "SMS", "PUSH"):
        check.looked_at += 1
        rows = [delivery for delivery in evidence.deliveries.values() if delivery.channel == channel]
        taken = {call.delivery for call in evidence.ledger.calls if call.channel == channel and call.accepted_ms}
        ours = sum(delivery.status in TAKEN for delivery in rows)
        unknown = sum(delivery.status == "UNCERTAIN" and delivery.id in taken for delivery in rows)
        theirs = len(taken & {delivery.id for delivery in rows})
        lost = sum(
            delivery.status in NOT_TAKEN and delivery.id in taken for delivery in rows if _is_lost(evidence, delivery)
        )
        if ours + unknown + lost != theirs:
            check.wrong.append(("", f"{channel}: {ours} sent and {unknown} uncertain here, {theirs} taken there"))
    for event, (counts, stored) in evidence.api_counts.items():
        check.looked_at += 1
        if {status: count for status, count in counts.items() if count} != stored:
            check.wrong.append((event, f"the API counts {counts}, the rows are {stored}"))


@rule("providers", "every receipt that was taken shows")
def receipts_show(evidence: Evidence, check: Check) -> None:
    for receipt in evidence.ledger.receipts:
        if receipt.word == "sent":
            continue
        check.looked_at += 1
        delivery = evidence.deliveries.get(receipt.delivery)
        if delivery is None or delivery.status not in ("DELIVERED", "BOUNCED"):
            status = delivery.status if delivery else "missing"
            emptied_ms = evidence.emptied_after(receipt.answered_ms)
            lost = evidence.only_in_redis(receipt.answered_ms) or (
                emptied_ms is not None and emptied_ms - receipt.answered_ms < 2_000
            )
            told = f"{receipt.word} of attempt {receipt.attempt} was taken at {receipt.answered_ms}, it is {status}"
            (check.apart if lost else check.wrong).append((receipt.delivery, told))


@rule("processes", "Redis was taken for lost only where something was done to it")
def lost_for_a_reason(evidence: Evidence, check: Check) -> None:
    done = [fault for fault in evidence.ledger.faults if fault.target == "redis"]
    for cause, lost_ms in evidence.losses:
        check.looked_at += 1
        if not any(fault.at_ms <= lost_ms <= fault.until_ms + _NOTICED_MS for fault in done):
            check.wrong.append(("", f"it was rebuilt as {cause} at {lost_ms}, and nothing had been done to it"))


def _sent_ones(evidence: Evidence) -> Iterator[Delivery]:
    return (delivery for delivery in evidence.deliveries.values() if delivery.channel != "IN_APP")


def _no_claim_after(evidence: Evidence, check: Check, delivery: Delivery, since_ms: int, what: str) -> None:
    for attempt in delivery.attempts:
        began = delivery.at(attempt, "SENDING")
        if began is not None and began > since_ms:
            told = f"attempt {attempt} was claimed at {began}, {began - since_ms} ms after {what}"
            (check.apart if evidence.only_in_redis(since_ms) else check.wrong).append((delivery.id, told))


def _steps_in_flight(flights: Mapping[str, str]) -> Iterator[tuple[str, tuple[str, str, int]]]:
    """Each step in Redis: "notification:number", and its notification, letter and time."""
    for notification, text in flights.items():
        for step in text.split("|", 4)[-1].split(";"):
            number, _, letter, _, time, *_ = step.split(",")
            yield f"{notification}:{number}", (notification, letter, int(time))


def _is_lost(evidence: Evidence, delivery: Delivery) -> bool:
    """Whether nobody can know any more that a provider took it."""
    taken = [call for call in evidence.calls_of(delivery.id) if call.accepted_ms is not None]
    return all(map(evidence.told_to_the_dead, taken))


def _is_owned_up_to(evidence: Evidence, delivery: str, attempt: int) -> bool:
    """Whether the journey says that what became of this attempt, or of one before it, was lost with Redis, and nobody
    could say more: then attempts are counted on from there."""
    row = evidence.deliveries.get(delivery)
    if row is None:
        return False
    doubts = [int(place.split(":")[0]) for place, fact in row.history.items() if fact.get("reason") == "redis_lost"]
    calls = [call for call in evidence.calls_of(delivery) if call.attempt == attempt]
    return any(number <= attempt for number in doubts) and any(map(evidence.told_to_the_dead, calls))


def _may_be_lost(evidence: Evidence, delivery: str) -> bool:
    """Whether the delivery may be one of an event that only Redis had when it was emptied: ids of one event begin with
    its millisecond."""
    lost = [event for event in evidence.ledger.accepted.values() if event.durability == "redis"]
    return any(event.id[:13] == delivery[:13] and event.id not in evidence.events for event in lost)


_KEPT: Sequence[str] = (
    "tocsin:facts",  # the journal; I3 says that it is empty
    "tocsin:epoch",
    "tocsin:last_fact",
    "tocsin:optouts",
    "tocsin:people_mirrored",
    "tocsin:processes",
    "tocsin:api_keys",
    "tocsin:breakers",
    "tocsin:queues",
    "tocsin:installation",
    "tocsin:due",  # I1 and I2 say what is in it
    "tocsin:dramatiq:__heartbeats__",
)


def _may_stay(key: Key, evidence: Evidence) -> bool:
    if key.ttl_ms >= 0 or key.name in _KEPT:
        return True
    if key.name.startswith("tocsin:flight:"):
        start = key.name.removeprefix("tocsin:flight:")
        return any(notification.startswith(start) for notification in evidence.flights)
    # Calls that wait for a worker, which takes them when it comes by.
    return key.name.startswith("tocsin:dramatiq:")
