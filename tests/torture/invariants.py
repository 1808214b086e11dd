"""Checks of I1 to I6, and that nothing is claimed or left over that should not be."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from tests.torture.check import Check, Rules
from tests.torture.evidence import OPEN, Delivery, Evidence, Key

RULES = Rules("invariants")


@RULES.add("I1 what is open is in the time index, and the index holds nothing else")
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


@RULES.add("I2 no event and no chunk is left half done")
def none_half_done(evidence: Evidence, check: Check) -> None:
    check.looked_at = len(evidence.due)
    check.wrong += [("", f"{name} is still in due") for name in evidence.due if not name.startswith("n:")]
    check.wrong += [("", f"{key.name} is left") for key in evidence.keys if key.name.startswith("tocsin:chunk:")]


@RULES.add("I3 the journal is empty and no fact was refused")
def all_told(evidence: Evidence, check: Check) -> None:
    check.looked_at = evidence.facts + len(evidence.bad_facts) + 1
    if evidence.facts:
        check.wrong.append(("", f"{evidence.facts} entries wait in the journal"))
    check.wrong += [("", f"bad fact {fact[:300]}") for fact in evidence.bad_facts]


@RULES.add("I4 one claim at a time: no attempt was brought twice, none began before the one before had ended")
def one_at_a_time(evidence: Evidence, check: Check) -> None:
    brought = Counter((call.delivery, call.attempt, call.to) for call in evidence.ledger.calls)
    check.looked_at = len(brought)
    for (delivery, attempt, _), count in brought.items():
        if count > 1:
            told = f"attempt {attempt} was brought to the provider {count} times"
            (check.apart if evidence.owned_up_to(delivery, attempt) else check.wrong).append((delivery, told))
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


@RULES.add("I5 nothing was claimed after an answered read")
def none_after_read(evidence: Evidence, check: Check) -> None:
    reads = evidence.ledger.reads
    for delivery in evidence.sent_ones():
        read_ms = reads.get(delivery.notification)
        if read_ms is not None:
            check.looked_at += 1
            _no_claim_after(evidence, check, delivery, read_ms, "its read was answered")


@RULES.add("I6 what Postgres has open is in motion again once Redis was emptied")
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


@RULES.add("nothing was claimed after an answered cancel")
def none_after_cancel(evidence: Evidence, check: Check) -> None:
    for delivery in evidence.sent_ones():
        cancelled_ms = evidence.ledger.cancels.get(delivery.event)
        if cancelled_ms is not None:
            check.looked_at += 1
            _no_claim_after(evidence, check, delivery, cancelled_ms, "its event's cancel was answered")


@RULES.add("nothing left in Redis that nothing will remove")
def no_leftovers(evidence: Evidence, check: Check) -> None:
    for key in evidence.keys:
        check.looked_at += 1
        if not _may_stay(key, evidence):
            check.wrong.append(("", f"{key.name} ({key.type}, {key.size} entries, no end)"))


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
