"""What Redis does not have is put back into motion once, and what it has is left as it is."""

import os

import pytest

from tests.scenes import an_event, routed
from tests.workbench import GONE_MS, NEVER, Bench, eventually
from tocsin.domain import ids
from tocsin.domain.delivery import Channel, Status
from tocsin.domain.event import Event
from tocsin.domain.plan import Step
from tocsin.storage.flight_parts import Claim, Ending, OpenFlight, OpenStep

LONG_AGO_MS = 1_000
FAR_MS = 9_000_000_000_000


def lost(event: Event, *steps: OpenStep, user: str = "u1", read_ms: int = 0) -> OpenFlight:
    return OpenFlight(ids.notification_id(event.id, user), user, event.id, False, read_ms, steps)


def sms(status: Status, attempt: int = 1, time_ms: int = LONG_AGO_MS) -> OpenStep:
    return OpenStep(2, Channel.SMS, status, attempt, time_ms)


@pytest.mark.parametrize("status", [Status.QUEUED, Status.RETRYING])
async def test_what_could_start_is_claimed_again_with_its_attempt(bench: Bench, status: Status) -> None:
    event = an_event()
    assert await bench.flights.restore([lost(event, sms(status, attempt=2))]) == ["restored"]
    (claim,) = await bench.claim(Channel.SMS)
    assert (claim.step, claim.attempt, claim.user, claim.event) == (2, 2, "u1", event.id)


async def test_what_waits_for_its_time_waits_again(bench: Bench) -> None:
    flight = lost(an_event(), sms(Status.SCHEDULED, time_ms=FAR_MS))
    await bench.flights.restore([flight])
    await bench.flights.escalate([Channel.SMS])
    assert await bench.claim(Channel.SMS) == []
    assert await bench.client.zscore(bench.keys.due, f"n:{flight.notification}") == FAR_MS


async def test_what_is_due_already_starts_at_the_next_look(bench: Bench) -> None:
    await bench.flights.restore([lost(an_event(), sms(Status.SCHEDULED))])
    await bench.flights.escalate([Channel.SMS])
    assert len(await bench.claim(Channel.SMS)) == 1


async def test_restoring_twice_restores_once(bench: Bench) -> None:
    flight = lost(an_event(), sms(Status.QUEUED))
    assert [await bench.flights.restore([flight]) for _ in range(2)] == [["restored"], ["there"]]
    assert len(await bench.claim(Channel.SMS)) == 1


async def test_a_claim_under_way_is_left_alone(bench: Bench) -> None:
    event = an_event(Step(Channel.IN_APP, 0), Step(Channel.SMS, 0))
    await routed(bench.flights, event, "u1")
    (claim,) = await bench.sending(Channel.SMS)
    assert await bench.flights.restore([lost(event, sms(Status.QUEUED))]) == ["there"]
    assert await bench.claim(Channel.SMS, "t2") == []
    await bench.attempts.record([Ending(claim, Status.SENT, {})])
    assert await bench.leftovers() == set()


async def test_what_fell_out_of_the_index_is_entered_again(bench: Bench) -> None:
    event = an_event(Step(Channel.IN_APP, 0), Step(Channel.SMS, 0), Step(Channel.EMAIL, NEVER))
    await routed(bench.flights, event, "u1")
    await bench.client.delete(bench.keys.due, bench.keys.due_in("SMS"))
    await bench.flights.restore([lost(event, sms(Status.QUEUED))])
    assert len(await bench.claim(Channel.SMS)) == 1
    assert await bench.client.zcard(bench.keys.due) == 1


@pytest.mark.parametrize("known", ["to Postgres", "to Redis"])
async def test_what_was_read_meanwhile_is_cancelled(bench: Bench, known: str) -> None:
    event = an_event()
    if known == "to Redis":
        await bench.flights.read("u1", [(ids.notification_id(event.id, "u1"), True)])
    flight = lost(event, sms(Status.QUEUED), read_ms=LONG_AGO_MS if known == "to Postgres" else 0)
    assert await bench.flights.restore([flight]) == ["cancelled"]
    assert ("SMS", 1, "CANCELLED", {"reason": "read"}) in await bench.moves()
    assert {name for name in await bench.leftovers() if "due" in name or "flight" in name} == set()


async def test_a_call_that_was_under_way_ends_as_whoever_made_it_says(bench: Bench) -> None:
    event = an_event()
    await bench.flights.restore([lost(event, sms(Status.SENDING, time_ms=FAR_MS))])
    claim = Claim(ids.notification_id(event.id, "u1"), 2, 1, "u1", event.id, Channel.SMS, os.urandom(4).hex())
    await bench.attempts.record([Ending(claim, Status.SENT, {})])
    assert await bench.leftovers() == set()


async def test_a_call_that_was_under_way_and_of_which_nobody_tells_is_uncertain(bench: Bench) -> None:
    await bench.flights.restore([lost(an_event(), sms(Status.SENDING, time_ms=GONE_MS))])

    async def uncertain() -> bool:
        await bench.claim(Channel.SMS)
        return ("SMS", 1, "UNCERTAIN", {"reason": "redis_lost"}) in await bench.moves()

    await eventually(uncertain)
    assert await bench.leftovers() == set()
