"""Checks against what providers counted for themselves."""

from tests.torture.check import Check, Rules
from tests.torture.evidence import RESENT, Delivery, Evidence
from tests.torture.ledger import Call

RULES = Rules("providers")

TAKEN = frozenset({"SENT", "DELIVERED", "BOUNCED"})
NOT_TAKEN = frozenset({"FAILED", "DEAD", "CANCELLED", "SUPPRESSED"})


@RULES.add("one message a delivery, or more only where the journey says uncertain and it is sent again")
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
                if number not in delivery.uncertain and not evidence.owned_up_to(delivery.id, number)
            ]
            if unexplained or (earlier and delivery.channel not in RESENT):
                check.wrong.append(
                    (delivery.id, f"taken {len(taken)} times, in attempts {sorted(c.attempt for c in taken)}")
                )
            elif earlier:
                check.apart.append((delivery.id, f"taken {len(taken)} times, and the journey says uncertain"))


@RULES.add("every message belongs to an attempt that the journey tells")
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


@RULES.add("none to somebody who had switched the channel off")
def none_opted_out(evidence: Evidence, check: Check) -> None:
    by_user: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for each in evidence.ledger.opt_outs:
        by_user.setdefault((each.user, each.channel), []).append((each.from_ms, each.until_ms))
    for delivery in evidence.sent_ones():
        spans = by_user.get((delivery.user, delivery.channel), ())
        event = evidence.events.get(delivery.event)
        if not spans or event is None or event.mandatory:
            continue
        check.looked_at += 1
        for attempt in delivery.attempts:
            began = delivery.at(attempt, "SENDING")
            if began is not None and any(since < began < until for since, until in spans):
                check.wrong.append((delivery.id, f"attempt {attempt} was claimed at {began}, switched off then"))


@RULES.add("statuses equal the providers' logs")
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


@RULES.add("what was looked up at the provider is true")
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


@RULES.add("sums equal the providers' logs, and what the API says")
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


@RULES.add("every receipt that was taken shows")
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


def _is_lost(evidence: Evidence, delivery: Delivery) -> bool:
    """Whether nobody can know any more that a provider took it."""
    taken = [call for call in evidence.calls_of(delivery.id) if call.accepted_ms is not None]
    return all(map(evidence.told_to_the_dead, taken))


def _may_be_lost(evidence: Evidence, delivery: str) -> bool:
    """Whether the delivery may be one of an event that only Redis had when it was emptied: ids of one event begin with
    its millisecond."""
    lost = [event for event in evidence.ledger.accepted.values() if event.durability == "redis"]
    return any(event.id[:13] == delivery[:13] and event.id not in evidence.events for event in lost)
