"""Checks that what was accepted is there and came to its end."""

from collections import Counter

from tests.torture.check import Check, Rules
from tests.torture.evidence import OPEN, Evidence

RULES = Rules("kept")


@RULES.add("every accepted event is in Postgres")
def accepted_is_stored(evidence: Evidence, check: Check) -> None:
    for event in evidence.ledger.accepted.values():
        check.looked_at += 1
        if event.id in evidence.events:
            continue
        told = f"answered 202 ({event.durability}) at {event.answered_ms}, and Postgres does not have it"
        emptied = event.durability == "redis" and evidence.emptied_after(event.answered_ms) is not None
        (check.apart if emptied else check.wrong).append((event.id, told))


@RULES.add("every stored event is fanned out, to everybody, in full")
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


@RULES.add("every delivery is final, or its time is far off")
def all_final(evidence: Evidence, check: Check) -> None:
    for delivery in evidence.deliveries.values():
        check.looked_at += 1
        if delivery.status in OPEN and not delivery.is_far(evidence.at_ms):
            check.wrong.append((delivery.id, f"it is {delivery.status}"))


@RULES.add("the same Idempotency-Key was one event")
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


@RULES.add("no event was stored twice under one Idempotency-Key, answered or not")
def stored_once(evidence: Evidence, check: Check) -> None:
    for event in evidence.events.values():
        check.looked_at += 1
        if not event.has_key:
            told = f"accepted at {event.accepted_ms}, and its key is another event's"
            unknowable = evidence.key_may_be_forgotten(event.accepted_ms)
            (check.apart if unknowable else check.wrong).append((event.id, told))
