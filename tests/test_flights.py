"""The scripts of what is in motion, on fakeredis and on a real Redis."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from tests.scenes import an_event, chunk_of, people, progress_of, route_chunk, routed, routing
from tests.workbench import GONE_MS, LEASE_MS, NEVER, Bench, eventually
from tocsin.domain.delivery import Channel, Reason, Status
from tocsin.domain.errors import Overloaded
from tocsin.domain.event import Contact
from tocsin.domain.plan import Priority, Step
from tocsin.storage.flight_parts import Ending
from tocsin.storage.inbox import entry
from tocsin.storage.redis import connect
from tocsin.storage.routed import parts


async def started(bench: Bench) -> list[str]:
    """Whose actors are to be called, after a look at what is due."""
    calls, _ = await bench.flights.escalate([Channel.SMS])
    return calls


async def test_an_event_is_taken_in_once(bench: Bench) -> None:
    event = an_event()
    assert await bench.flights.accept(event, people("u1"), None)
    assert not await bench.flights.accept(event, people("u1"), None)
    assert await bench.flights.event(event.id) == event


async def test_an_event_that_fell_out_of_the_index_is_entered_there_when_it_is_taken_in_again(bench: Bench) -> None:
    event = an_event()
    await bench.flights.accept(event, people("u1"), None)
    await bench.client.delete(bench.keys.due)
    assert not await bench.flights.accept(event, people("u1"), None)
    assert await bench.client.zscore(bench.keys.due, f"e:{event.id}")


async def test_the_fact_of_an_event_that_postgres_lacks_is_told_in_the_same_step(bench: Bench) -> None:
    await bench.flights.accept(an_event(), people("u1"), {"f": "accepted"})
    assert await bench.facts() == [{"f": "accepted"}]


async def test_an_event_is_fanned_out_page_by_page_and_says_when_it_is_complete(bench: Bench) -> None:
    users = [f"u{number}" for number in range(250)]
    event = an_event(Step(Channel.IN_APP, 0), recipient_count=250)
    await bench.flights.accept(event, people(*users), None)
    pages = [await bench.flights.take_page(event, cursor) for cursor in ("0", "100", "200")]
    assert [(page.state, page.cursor, page.chunk) for page in pages] == [
        ("more", "100", 0),
        ("more", "200", 1),
        ("last", "250", 2),
    ]
    for chunk in (2, 0, 1):
        chunk_users = await chunk_of(bench.flights, event, chunk)
        await route_chunk(bench.flights, event, chunk, [routing(event, user) for user in chunk_users])
    told = [(fact["status"], fact["expected"]) for fact in await bench.facts() if fact["f"] == "event"]
    assert told == [("PROCESSING", None), ("COMPLETED", 250)]
    listed = [notification[1] for fact in await bench.facts() if fact["f"] == "routed" for notification in fact["n"]]
    assert sorted(listed) == sorted(users)
    assert await bench.leftovers() == set()


async def test_each_gets_the_plan_and_the_addresses_that_are_theirs(bench: Bench) -> None:
    """However many plans there are, in whatever order, and whatever an address is written with."""
    event, users = (
        an_event(Step(Channel.SMS, 0), Step(Channel.EMAIL, NEVER), recipient_count=4),
        ("u1", "u2", "u3", "u4"),
    )
    await bench.flights.accept(event, people(*users), None)
    await bench.flights.take_page(event, "0")
    one, two, three, four = (routing(event, user) for user in users)
    unreachable = tuple(replace(step, reason=Reason.NO_ADDRESS) for step in two.plan)
    odd = ('1\n"2"', "ä, b@example.org")
    planned = [
        one,
        two._replace(plan=unreachable, addresses=(None, None)),
        three._replace(plan=one.plan, addresses=odd),
    ]
    await route_chunk(bench.flights, event, 0, [*planned, four._replace(plan=unreachable, addresses=("", None))])
    (fact,) = [fact for fact in await bench.facts() if fact["f"] == "routed"]
    courses, notes = parts(fact)
    told = {user: ([step[2] for step in courses[course][1]], *given) for _, user, course, *given in notes}
    reached, not_reached = ["QUEUED", "SCHEDULED"], ["SUPPRESSED", "SUPPRESSED"]
    assert told == {
        "u1": (reached, "SMS-of-u1", "EMAIL-of-u1"),
        "u2": (not_reached, None, None),
        "u3": (reached, *odd),
        "u4": (not_reached, "", None),
    }
    assert {note[1]: note[0] for note in notes} == {each.user: each.notification for each in (one, two, three, four)}
    assert {claim.user for claim in await bench.claim(Channel.SMS)} == {"u1", "u3"}


async def test_a_page_is_made_once_by_two_that_ask_for_it(bench: Bench) -> None:
    event = an_event()
    await bench.flights.accept(event, people(*(f"u{number}" for number in range(150))), None)
    first, second = await asyncio.gather(bench.flights.take_page(event, "0"), bench.flights.take_page(event, "0"))
    assert {first.state, second.state} == {"more", "moved"}


async def test_fan_out_pauses_while_twenty_chunks_are_open(bench: Bench) -> None:
    event = an_event(Step(Channel.IN_APP, 0))
    await bench.flights.accept(event, people(*(f"u{number}" for number in range(2_100))), None)
    cursor = "0"
    while (page := await bench.flights.take_page(event, cursor)).state == "more":
        cursor = page.cursor
    assert (page.state, page.cursor) == ("pause", "2000")


async def test_a_fan_out_that_paused_is_called_once_and_no_other_is(bench: Bench) -> None:
    event = an_event(Step(Channel.IN_APP, 0))
    await bench.flights.accept(event, people(*(f"u{number}" for number in range(2_300))), None)
    page = await bench.flights.take_page(event, "0")

    async def calls_of(chunks: range) -> list[int]:
        """Which of the chunks call the fan-out when they are routed."""
        answers = [await route_chunk(bench.flights, event, chunk, [routing(event, "u1")]) for chunk in chunks]
        return [chunk for chunk, answer in zip(chunks, answers, strict=True) if answer and answer[0]]

    assert await calls_of(range(1)) == []
    while page.state == "more":
        page = await bench.flights.take_page(event, page.cursor)
    assert (page.state, page.cursor) == ("pause", "2100")
    assert await calls_of(range(1, 21)) == [10]
    assert (await bench.flights.take_page(event, "2100")).state == "more"
    assert await calls_of(range(21, 22)) == []


async def test_a_chunk_that_is_of_another_entry_of_its_event_is_left_to_who_reads_it_anew(bench: Bench) -> None:
    event = an_event(Step(Channel.IN_APP, 0))
    await bench.flights.accept(event, people("u1"), None)
    await bench.flights.take_page(event, "0")
    found = await bench.flights.to_route(event.id, 0)
    assert found is not None
    assert await bench.flights.route(event, 0, [routing(event, "u1")], "an earlier one") is None
    assert await bench.flights.route(event, 0, [routing(event, "u1")], found.entry) is not None


async def test_a_chunk_is_routed_once_by_two_that_try(bench: Bench) -> None:
    event = an_event()
    await bench.flights.accept(event, people("u1"), None)
    await bench.flights.take_page(event, "0")
    routings, entry = [routing(event, "u1")], (await progress_of(bench.flights, event)).entry
    answers = await asyncio.gather(*(bench.flights.route(event, 0, routings, entry) for _ in range(2)))
    assert sum(answer is not None for answer in answers) == 1
    assert len(await bench.lists.entries("u1")) == 1


async def test_in_app_is_delivered_by_being_listed_and_leaves_no_flight(bench: Bench) -> None:
    event = an_event(Step(Channel.IN_APP, 0))
    (made,) = await routed(bench.flights, event, "u1")
    (listed,) = await bench.lists.entries("u1")
    assert (listed.id, listed.event) == (made.id, event.id)
    assert await bench.leftovers() == set()
    assert 0 < await bench.client.pttl("notifications:u1") <= 60_000


async def test_a_stored_entry_is_removed_by_its_exact_bytes(bench: Bench) -> None:
    await routed(bench.flights, an_event(Step(Channel.IN_APP, 0)), "u1")
    await routed(bench.flights, an_event(Step(Channel.IN_APP, 0)), "u1")
    newer, older = await bench.lists.entries("u1")
    assert entry(newer.id, newer.event, newer.listed_ms) == await bench.client.lindex("notifications:u1", 0)
    await bench.lists.trim([("u1", older.id, older.event, older.listed_ms)])
    assert await bench.lists.entries("u1") == [newer]


async def test_with_the_cache_off_nothing_is_listed(either_redis: Any) -> None:
    bench = Bench(either_redis, cached=False)
    await routed(bench.flights, an_event(Step(Channel.IN_APP, 0)), "u1")
    assert await bench.lists.entries("u1") == []
    assert [fact["published"] for fact in await bench.facts() if fact["f"] == "routed"] == [False]


async def test_a_later_step_starts_when_its_time_comes(bench: Bench) -> None:
    await routed(
        bench.flights, an_event(Step(Channel.IN_APP, 0), Step(Channel.SMS, 30), Step(Channel.EMAIL, NEVER)), "u1"
    )
    assert await bench.claim(Channel.SMS) == []
    assert await eventually(lambda: started(bench)) == ["s:SMS"]
    (claim,) = await bench.claim(Channel.SMS, "t2")
    assert (claim.step, claim.attempt, claim.user) == (2, 1, "u1")
    assert await bench.claim(Channel.EMAIL) == []


async def test_who_began_recorded_or_read_knows_how_far_the_journal_is(bench: Bench) -> None:
    """So that a Redis that comes back older than that is noticed before anything starts."""

    async def knows() -> bool:
        last = await bench.client.get("t:last_fact")
        return bool(bench.scripts.life.reached == int(last.split("-")[1]))

    event = an_event(Step(Channel.IN_APP, 0), Step(Channel.SMS, 0), Step(Channel.EMAIL, NEVER))
    (made,) = await routed(bench.flights, event, "u1")
    assert not await knows()
    (claim,) = await bench.sending(Channel.SMS)
    assert await knows()
    await bench.attempts.record([Ending(claim, Status.SENT, {})])
    assert await knows()
    await bench.flights.read("u1", [(made.id, False)])
    assert await knows()


async def test_what_is_due_starts_once_however_many_look(bench: Bench) -> None:
    await routed(bench.flights, an_event(Step(Channel.SMS, 1)), "u1")
    await eventually(lambda: started(bench))
    await asyncio.gather(*(bench.flights.escalate([Channel.SMS]) for _ in range(5)))
    assert [status for _, _, status, _ in await bench.moves()] == ["QUEUED"]


async def test_two_actors_do_not_claim_one_delivery(bench: Bench) -> None:
    await routed(bench.flights, an_event(Step(Channel.SMS, 0)), *(f"u{number}" for number in range(50)))
    batches = await asyncio.gather(
        *(bench.attempts.claim(Channel.SMS, f"t{n}", 20, lease_ms=LEASE_MS, attempts=3, resend=False) for n in range(6))
    )
    claimed = [claim.notification for batch in batches for claim in batch]
    assert len(claimed) == len(set(claimed)) == 50


async def test_the_same_token_gets_the_same_answer(bench: Bench) -> None:
    await routed(bench.flights, an_event(Step(Channel.SMS, 0)), "u1", "u2")
    assert await bench.claim(Channel.SMS, "t1") == await bench.claim(Channel.SMS, "t1") != []


async def test_critical_is_claimed_first(bench: Bench) -> None:
    await routed(bench.flights, an_event(Step(Channel.SMS, 0)), "u1", "u2")
    (critical,) = await routed(bench.flights, an_event(Step(Channel.SMS, 0), priority=Priority.CRITICAL), "u3")
    (first,) = await bench.attempts.claim(Channel.SMS, "t1", 1, lease_ms=LEASE_MS, attempts=3, resend=False)
    assert first.notification == critical.id


async def test_a_claim_that_never_began_is_freed_without_a_trace(bench: Bench) -> None:
    await routed(bench.flights, an_event(Step(Channel.SMS, 0)), "u1")
    (lost,) = await bench.claim(Channel.SMS, "t1", lease_ms=GONE_MS)
    (again,) = await eventually(lambda: bench.claim(Channel.SMS, "t2"))
    assert again.attempt == lost.attempt == 1
    assert await bench.attempts.begin([lost], "t1", lease_ms=LEASE_MS, detail={}) == [False]
    assert await bench.moves() == []


async def test_a_lease_lost_while_sending_is_uncertain_and_held(bench: Bench) -> None:
    await routed(bench.flights, an_event(Step(Channel.SMS, 0)), "u1")
    await bench.sending(Channel.SMS, "t1", lease_ms=GONE_MS)

    async def uncertain() -> bool:
        assert await bench.claim(Channel.SMS, "t2", resend=False) == []
        return ("SMS", 1, "UNCERTAIN", {"reason": "lease_lost"}) in await bench.moves()

    await eventually(uncertain)
    assert await bench.leftovers() == set()


async def test_a_lease_lost_while_sending_is_sent_again_where_the_channel_says_so(bench: Bench) -> None:
    await routed(bench.flights, an_event(Step(Channel.EMAIL, 0)), "u1")
    await bench.sending(Channel.EMAIL, "t1", lease_ms=GONE_MS)
    (again,) = await eventually(lambda: bench.claim(Channel.EMAIL, "t2", resend=True))
    assert again.attempt == 2
    assert [(attempt, status) for _, attempt, status, _ in await bench.moves()] == [
        (1, "SENDING"),
        (1, "UNCERTAIN"),
        (2, "RETRYING"),
    ]


@pytest.mark.parametrize("then", ["claimed", "read", "withdrawn"])
async def test_a_lease_lost_while_sending_ends_without_a_claim(bench: Bench, then: str) -> None:
    event = an_event(Step(Channel.EMAIL, 0))
    lost, goes_on = await routed(bench.flights, event, "u1", "u2")
    await bench.sending(Channel.EMAIL)
    steps = [(made.id, 1) for made in (lost, goes_on)]
    await bench.attempts.end_leases(Channel.EMAIL, steps, attempts=3, resend=True)
    assert {status for *_, status, _ in await bench.moves()} == {"SENDING"}
    await bench.end_lease_of(lost.id, 1)
    if then == "read":
        await bench.flights.read("u1", [(lost.id, False)])
    elif then == "withdrawn":
        await bench.flights.withdraw(event.id)
    await bench.attempts.end_leases(Channel.EMAIL, steps, attempts=3, resend=True)
    told = [(attempt, status, detail.get("reason")) for _, attempt, status, detail in await bench.moves()][2:]
    assert told[:2] == [(1, "UNCERTAIN", "lease_lost"), (2, "RETRYING", "lease_lost")]
    assert told[2:] == {
        "claimed": [], "read": [(2, "CANCELLED", "read")], "withdrawn": [(2, "CANCELLED", "cancelled")],
    }[then]  # fmt: skip
    claims = await bench.claim(Channel.EMAIL, "t2", resend=True)
    assert [(claim.notification, claim.attempt) for claim in claims] == ([(lost.id, 2)] if then == "claimed" else [])


async def test_a_lease_lost_on_a_channel_that_holds_is_uncertain_without_a_claim(bench: Bench) -> None:
    (made,) = await routed(bench.flights, an_event(Step(Channel.SMS, 0)), "u1")
    await bench.sending(Channel.SMS)
    await bench.end_lease_of(made.id, 1)
    await bench.attempts.end_leases(Channel.SMS, [(made.id, 1)], attempts=3, resend=False)
    assert (await bench.moves())[-1] == ("SMS", 1, "UNCERTAIN", {"reason": "lease_lost"})
    assert await bench.leftovers() == set()


async def test_a_chunk_whose_event_is_forgotten_leaves_nothing_that_stays_for_ever(bench: Bench) -> None:
    event = an_event(Step(Channel.SMS, 0))
    await bench.flights.accept(event, people("u1"), None)
    page = await bench.flights.take_page(event, 0)
    assert page.chunk == 0
    await bench.client.delete(bench.keys.event(event.id))
    assert await bench.flights.route(event, 0, [routing(event, "u1")], "") == (False, [Channel.SMS])
    assert not await bench.client.exists(bench.keys.event(event.id))
    await bench.client.hset(bench.keys.event(event.id), "routed", "1")
    await bench.flights.keep_content([event])
    assert await bench.flights.event(event.id) == event
    assert await bench.client.pttl(bench.keys.event(event.id)) > 0


async def test_who_claims_what_another_left_in_doubt_can_testify_to_the_doubt(bench: Bench) -> None:
    """Only Redis was told of it: were it emptied before Postgres hears, nobody could explain the second message."""
    bench.scripts.life.adopt("a life", 0)
    await bench.client.set("t:epoch", "a life")
    await routed(bench.flights, an_event(Step(Channel.EMAIL, 0)), "u1")
    await bench.sending(Channel.EMAIL, "t1", lease_ms=GONE_MS)
    await eventually(lambda: bench.claim(Channel.EMAIL, "t2", resend=True))
    told = [move for fact in bench.scripts.life.testimony() for move in fact["d"]]
    assert [(move[3], move[4], move[7].get("reason")) for move in told] == [
        (1, "SENDING", None),
        (1, "UNCERTAIN", "lease_lost"),
        (2, "RETRYING", "lease_lost"),
    ]


async def test_a_sent_delivery_leaves_nothing_in_motion(bench: Bench) -> None:
    await routed(bench.flights, an_event(Step(Channel.EMAIL, 0)), "u1")
    (claim,) = await bench.sending(Channel.EMAIL)
    assert await bench.attempts.record([Ending(claim, Status.SENT, {"provider_id": "x"})]) == [False]
    assert (await bench.moves())[-1] == ("EMAIL", 1, "SENT", {"provider_id": "x"})
    assert await bench.leftovers() == set()


async def test_a_failed_attempt_is_followed_by_another_after_its_delay(bench: Bench) -> None:
    await routed(bench.flights, an_event(Step(Channel.EMAIL, 0)), "u1")
    (claim,) = await bench.sending(Channel.EMAIL)
    ending = Ending(claim, Status.FAILED, {}, retry_in_ms=20, retry_reason=Reason.TIMEOUT)
    assert await bench.attempts.record([ending]) == [True]
    (again,) = await eventually(lambda: bench.claim(Channel.EMAIL, "t2"))
    assert again.attempt == 2
    channel, attempt, status, detail = (await bench.moves())[-1]
    assert (channel, attempt, status, detail["reason"]) == ("EMAIL", 2, "RETRYING", "timeout")


async def test_a_record_that_is_sent_again_changes_nothing_more(bench: Bench) -> None:
    await routed(bench.flights, an_event(Step(Channel.EMAIL, 0)), "u1")
    (claim,) = await bench.sending(Channel.EMAIL)
    ending = Ending(claim, Status.FAILED, {}, retry_in_ms=0, retry_reason=Reason.TIMEOUT)
    assert await bench.attempts.record([ending]) == [True]
    assert await bench.attempts.record([ending]) == [False]
    assert [attempt for _, attempt, status, _ in await bench.moves() if status == "RETRYING"] == [2]


async def test_what_went_out_after_its_lease_is_told_and_not_sent_once_more(bench: Bench) -> None:
    await routed(bench.flights, an_event(Step(Channel.EMAIL, 0)), "u1")
    (late,) = await bench.sending(Channel.EMAIL, "t1", lease_ms=GONE_MS)
    (again,) = await eventually(lambda: bench.claim(Channel.EMAIL, "t2", resend=True))
    await bench.attempts.record([Ending(late, Status.SENT, {})])
    assert (await bench.moves())[-2:] == [("EMAIL", 1, "SENT", {}), ("EMAIL", 2, "CANCELLED", {"reason": "settled"})]
    assert await bench.attempts.begin([again], "t2", lease_ms=LEASE_MS, detail={}) == [False]
    assert await bench.leftovers() == set()


async def test_a_failure_that_comes_after_its_lease_is_told_and_moves_nothing(bench: Bench) -> None:
    await routed(bench.flights, an_event(Step(Channel.EMAIL, 0)), "u1")
    (late,) = await bench.sending(Channel.EMAIL, "t1", lease_ms=GONE_MS)
    (again,) = await eventually(lambda: bench.claim(Channel.EMAIL, "t2", resend=True))
    await bench.attempts.record([Ending(late, Status.FAILED, {})])
    assert ("EMAIL", 1, "FAILED", {}) in await bench.moves()
    assert await bench.attempts.begin([again], "t2", lease_ms=LEASE_MS, detail={}) == [True]


async def test_a_read_stops_the_sms_that_is_waiting(bench: Bench) -> None:
    (made,) = await routed(
        bench.flights, an_event(Step(Channel.IN_APP, 0), Step(Channel.SMS, 1), Step(Channel.EMAIL, NEVER)), "u1"
    )
    (answer,) = await bench.flights.read("u1", [(made.id, False)])
    assert answer.state == "changed"
    assert await started(bench) == []
    assert {(channel, status) for channel, _, status, _ in await bench.moves()} == {
        ("SMS", "CANCELLED"),
        ("EMAIL", "CANCELLED"),
    }
    assert await bench.leftovers() == set()


async def test_a_read_between_claim_and_begin_stops_the_send(bench: Bench) -> None:
    (made,) = await routed(bench.flights, an_event(Step(Channel.SMS, 0)), "u1")
    claims = await bench.claim(Channel.SMS)
    await bench.flights.read("u1", [(made.id, False)])
    assert await bench.attempts.begin(claims, "t1", lease_ms=LEASE_MS, detail={}) == [False]


async def test_an_opt_out_between_claim_and_begin_stops_the_send(bench: Bench) -> None:
    await routed(bench.flights, an_event(Step(Channel.SMS, 0)), "u1", "u2")
    claims = sorted(await bench.claim(Channel.SMS), key=lambda claim: claim.user)
    await bench.profiles.keep([Contact(id="u1", opt_outs=("SMS",), version=2)])
    assert await bench.attempts.begin(claims, "t1", lease_ms=LEASE_MS, detail={}) == [False, True]
    await bench.attempts.release(claims[:1], "t1")
    assert await bench.claim(Channel.SMS, "t2") == []
    assert ("SMS", 1, "SUPPRESSED", {"reason": "opted_out"}) in await bench.moves()


async def test_no_attempt_follows_a_read_that_came_while_sending(bench: Bench) -> None:
    (made,) = await routed(bench.flights, an_event(Step(Channel.SMS, 0)), "u1")
    (claim,) = await bench.sending(Channel.SMS)
    await bench.flights.read("u1", [(made.id, False)])
    ending = Ending(claim, Status.FAILED, {}, retry_in_ms=0, retry_reason=Reason.TIMEOUT)
    assert await bench.attempts.record([ending]) == [False]
    assert (await bench.moves())[-1] == ("SMS", 2, "CANCELLED", {"reason": "read"})
    assert await bench.leftovers() == set()


async def test_reading_twice_changes_once(bench: Bench) -> None:
    (made,) = await routed(bench.flights, an_event(Step(Channel.IN_APP, 0), Step(Channel.SMS, NEVER)), "u1")
    (first,) = await bench.flights.read("u1", [(made.id, False)])
    (second,) = await bench.flights.read("u1", [(made.id, False)])
    assert (first.state, second.state, second.read_ms) == ("changed", "known", first.read_ms)
    assert [fact["n"] for fact in await bench.facts() if fact["f"] == "read"] == [[[str(made.id), "u1"]]]


async def test_nobody_reads_what_is_anothers(bench: Bench) -> None:
    (made,) = await routed(bench.flights, an_event(Step(Channel.SMS, NEVER)), "u1")
    (answer,) = await bench.flights.read("u2", [(made.id, False)])
    assert answer.state == "foreign"
    assert not await bench.client.exists(bench.keys.read(made.id))


async def test_a_read_before_the_flight_is_made_stops_it(bench: Bench) -> None:
    event = an_event(Step(Channel.IN_APP, 0), Step(Channel.SMS, 0))
    (early,) = await bench.flights.read("u1", [(routing(event, "u1").id, True)])
    assert early.state == "changed"
    await routed(bench.flights, event, "u1")
    assert await bench.claim(Channel.SMS) == []
    assert await bench.leftovers() == set()


async def test_a_withdrawn_event_starts_nothing_more(bench: Bench) -> None:
    event = an_event(Step(Channel.SMS, 0), Step(Channel.EMAIL, NEVER))
    (made,) = await routed(bench.flights, event, "u1")
    assert await bench.flights.withdraw(event.id) == 0
    assert await bench.claim(Channel.SMS) == []
    assert await bench.flights.withdraw(event.id, [made.id]) == 1
    assert await bench.leftovers() == set()


async def test_what_is_withdrawn_stays_so_for_as_long_as_it_was_to(bench: Bench) -> None:
    event, fortnight_ms = an_event(Step(Channel.SMS, 0)), 14 * 86_400_000
    (made,) = await routed(bench.flights, event, "u1")
    await bench.client.set(bench.keys.cancelled(event.id), "1", px=fortnight_ms)
    assert await bench.flights.withdraw(event.id, [made.id]) == 1
    assert await bench.client.pttl(bench.keys.cancelled(event.id)) > fortnight_ms - 60_000


async def test_what_is_routed_after_a_withdrawal_is_cancelled_and_not_listed(bench: Bench) -> None:
    event = an_event(Step(Channel.IN_APP, 0), Step(Channel.SMS, 0))
    await bench.flights.withdraw(event.id)
    await routed(bench.flights, event, "u1")
    assert await bench.lists.entries("u1") == []
    assert await bench.leftovers() == set()


async def test_an_opt_out_after_the_plan_was_made_holds_at_the_claim(bench: Bench) -> None:
    await routed(bench.flights, an_event(Step(Channel.SMS, 0), priority=Priority.CRITICAL), "u1", "u2")
    await bench.profiles.keep([Contact(id="u1", opt_outs=("SMS",), version=2)])
    (claim,) = await bench.claim(Channel.SMS)
    assert claim.user == "u2"
    assert await bench.moves() == [("SMS", 1, "SUPPRESSED", {"reason": "opted_out"})]


@pytest.mark.parametrize(("off", "kind", "mandatory", "claimed"), [
    ("SMS@event.approval", "event.approval", False, 0),
    ("SMS@event.approval", "event.other", False, 1),
    ("SMS@event", "event.approval", False, 1),
    ("EMAIL", "event.approval", False, 1),
    ("SMS", "event.approval", True, 1),
])  # fmt: skip
async def test_an_opt_out_holds_for_what_it_names(
    bench: Bench, off: str, kind: str, mandatory: bool, claimed: int
) -> None:
    await routed(bench.flights, an_event(Step(Channel.SMS, 0), type=kind, mandatory=mandatory), "u1")
    await bench.profiles.keep([Contact(id="u1", opt_outs=(off,), version=1)])
    assert len(await bench.claim(Channel.SMS)) == claimed


async def test_an_older_profile_never_replaces_a_newer_one(bench: Bench) -> None:
    await bench.profiles.keep([Contact(id="u1", email="new@example.org", opt_outs=("SMS",), version=2)])
    await bench.profiles.keep([Contact(id="u1", email="old@example.org", version=1)])
    _, contacts = await bench.profiles.reached([(an_event().id, "u1")])
    assert contacts["u1"].email == "new@example.org"
    await bench.profiles.mirrored_up_to(1)
    assert await bench.profiles.opt_outs(["u1", "u2"]) == {"u1": ("SMS",), "u2": ()}


async def test_released_claims_may_start_again_later(bench: Bench) -> None:
    await routed(bench.flights, an_event(Step(Channel.SMS, 0)), "u1")
    claims = await bench.claim(Channel.SMS, "t1")
    await bench.attempts.release(claims, "t1", delay_ms=20)
    assert await bench.claim(Channel.SMS, "t2") == []
    (again,) = await eventually(lambda: bench.claim(Channel.SMS, "t3"))
    assert again.attempt == 1


async def test_work_that_fails_five_times_is_given_up_and_said(bench: Bench) -> None:
    event = an_event()
    await bench.flights.accept(event, people("u1"), None)
    name = f"e:{event.id}"
    assert await bench.flights.back_off(name, event.id, error=None)
    tries = [await bench.flights.back_off(name, event.id, error="ValueError") for _ in range(5)]
    assert tries == [True, True, True, True, False]
    assert [(fact["status"], fact["error"]) for fact in await bench.facts()] == [("FAILED", "ValueError")]
    assert (await bench.flights.take_page(event, "0")).state == "gone"
    assert await bench.client.zscore(bench.keys.due, name) is None


async def test_failures_of_a_fan_out_are_counted_page_by_page(bench: Bench) -> None:
    event = an_event()
    await bench.flights.accept(event, people(*(f"u{number}" for number in range(250))), None)
    for cursor in ("0", "100", "200"):
        assert all([await bench.flights.back_off(f"e:{event.id}", event.id, error="ValueError") for _ in range(4)])
        page = await bench.flights.take_page(event, cursor)
    assert page.state == "last"


async def test_the_journal_gives_an_entry_to_one_persister_until_it_is_done(bench: Bench) -> None:
    for number in range(6):
        await bench.journal.append([{"n": number}])
    first = await bench.journal.take("one", 3)
    second = await bench.journal.take("two", 10)
    assert [facts[0]["n"] for _, facts in first + second] == list(range(6))
    await bench.journal.done([identifier for identifier, _ in second])
    assert await bench.journal.length() == 3
    await bench.journal.give_back("one")
    assert [identifier for identifier, _ in await bench.journal.take("two", 10)] == [
        identifier for identifier, _ in first
    ]


@pytest.mark.parametrize("gone", [False, True])
async def test_the_number_in_the_journals_ids_grows_by_one_whatever_else_is_added_to_it(
    bench: Bench, gone: bool
) -> None:
    """A smaller one would say that Redis was set back, and everything be rebuilt (docs/adr/0005)."""
    await bench.flights.accept(an_event(), people("u1"), {"f": "accepted"})
    before = int((await bench.client.get("t:last_fact")).split("-")[1])
    later_ms = 2 * int((await bench.client.time())[0]) * 1_000
    foreign = await bench.client.xadd(bench.keys.facts, {"d": "[]"}, id=f"{later_ms}-0")
    if gone:
        await bench.client.xdel(bench.keys.facts, foreign)
    numbers = []
    for _ in range(3):
        await bench.flights.accept(an_event(), people("u1"), {"f": "accepted"})
        numbers.append(int((await bench.client.get("t:last_fact")).split("-")[1]))
    assert numbers == [before + 1, before + 2, before + 3]


async def test_draining_is_waited_for(bench: Bench) -> None:
    await bench.journal.append([{"n": 1}])
    assert not await bench.journal.drained(0.05)
    (taken,) = await bench.journal.take("one", 10)
    waiting = asyncio.create_task(bench.journal.drained(5))
    await asyncio.sleep(0)
    await bench.journal.done([taken[0]])
    assert await waiting


async def test_a_flights_place_is_told_by_its_id(bench: Bench) -> None:
    event = an_event(Step(Channel.SMS, NEVER))
    made = await routed(bench.flights, event, *(f"u{number}" for number in range(100)))
    buckets = await bench.client.keys("t:flight:*")
    assert {UUID(str(each.id)) for each in made} == {
        UUID(f"{name.split(':')[-1]}-{field}") for name in buckets for field in await bench.client.hkeys(name)
    }


async def test_more_than_one_look_can_start_is_said_to_be_due(bench: Bench) -> None:
    users = [f"u{number}" for number in range(100)]
    for number in range(2):
        await routed(bench.flights, an_event(Step(Channel.SMS, 1)), *(f"{user}-{number}" for user in users))

    async def all_due() -> bool:
        seconds, microseconds = await bench.client.time()
        now_ms = seconds * 1000 + microseconds // 1000
        return int(await bench.client.zcount(bench.keys.due, "-inf", now_ms)) == 200

    await eventually(all_due)
    assert [(await bench.flights.escalate([]))[1] for _ in range(3)] == [True, True, False]


async def test_what_may_not_start_keeps_nobody_behind_it_waiting(bench: Bench) -> None:
    withdrawn, wanted = an_event(Step(Channel.SMS, 0)), an_event(Step(Channel.SMS, 0))
    await routed(bench.flights, withdrawn, *(f"u{number}" for number in range(50)))
    await routed(bench.flights, wanted, "u1")
    await bench.flights.withdraw(withdrawn.id)
    claims = await bench.attempts.claim(Channel.SMS, "t1", 4, lease_ms=LEASE_MS, attempts=3, resend=False)
    assert [claim.event for claim in claims] == [wanted.id]


async def test_a_withdrawal_between_claim_and_begin_stops_the_send(bench: Bench) -> None:
    event = an_event(Step(Channel.SMS, 0))
    await routed(bench.flights, event, "u1")
    claims = await bench.claim(Channel.SMS)
    await bench.flights.withdraw(event.id)
    assert await bench.attempts.begin(claims, "t1", lease_ms=LEASE_MS, detail={}) == [False]


async def test_a_chunk_that_is_given_up_does_not_keep_the_others_waiting(bench: Bench) -> None:
    event = an_event(Step(Channel.IN_APP, 0))
    await bench.flights.accept(event, people(*(f"u{number}" for number in range(2_100))), None)
    cursor = "0"
    while (page := await bench.flights.take_page(event, cursor)).state == "more":
        cursor = page.cursor
    assert page.state == "pause"
    for _ in range(5):
        await bench.flights.back_off(f"c:{event.id}:0", event.id, error="ValueError")
    assert (await bench.flights.take_page(event, cursor)).state == "last"


async def test_work_that_another_has_done_is_not_put_back(bench: Bench) -> None:
    event = an_event(Step(Channel.IN_APP, 0))
    await routed(bench.flights, event, "u1")
    for error in (None, *["ValueError"] * 5):
        await bench.flights.back_off(f"c:{event.id}:0", event.id, error=error)
    assert await bench.leftovers() == set()
    assert "FAILED" not in [fact.get("status") for fact in await bench.facts()]


async def test_what_was_given_inline_is_there_as_long_as_an_event_of_which_a_chunk_was_given_up(bench: Bench) -> None:
    """While the event is there, what was not given inline counts as never given."""
    event = an_event(Step(Channel.SMS, 0), recipient_count=201)
    await bench.flights.accept(event, people(*(f"u{number}" for number in range(201))), None)
    for cursor in ("0", "100", "200"):
        await bench.flights.take_page(event, cursor)
    while await bench.flights.back_off(f"c:{event.id}:1", event.id, error="ValueError"):
        pass
    for chunk in (0, 2):
        await route_chunk(bench.flights, event, chunk, [routing(event, f"u{100 * chunk}")])
    event_ms = await bench.client.pttl(bench.keys.event(event.id))
    assert await bench.client.pttl(bench.keys.contacts(event.id)) >= event_ms > 0


async def test_what_is_left_of_an_event_that_was_given_up_goes_away_by_itself(bench: Bench) -> None:
    event = an_event()
    await bench.flights.accept(event, people("u1"), None)
    for _ in range(5):
        await bench.flights.back_off(f"e:{event.id}", event.id, error="ValueError")
    names = [
        name
        for name in await bench.client.keys("t:*")
        if name not in {bench.keys.facts, bench.keys.facts_bytes, "t:last_fact"}
    ]
    assert len(names) == 2
    assert all([await bench.client.pttl(name) > 0 for name in names])


@pytest.fixture
async def full(redis_url: str) -> AsyncIterator[Bench]:
    """A Redis that takes nothing more once `fill` was called."""
    client = connect(redis_url)
    await client.flushdb()
    yield Bench(client)
    await client.config_set("maxmemory", "0")
    await client.aclose()


async def fill(bench: Bench) -> None:
    await bench.client.config_set("maxmemory-policy", "noeviction")
    await bench.client.config_set("maxmemory", "1")
    with pytest.raises(Overloaded):
        await bench.flights.accept(an_event(), people("u1"), None)


@pytest.mark.servers
async def test_at_the_memory_limit_a_read_still_stops_what_waits(full: Bench) -> None:
    event = an_event(Step(Channel.SMS, NEVER))
    (sms,) = await routed(full.flights, event, "u1")
    await fill(full)
    answers = await full.flights.read("u1", [(sms.id, False), (UUID(int=1), True)])
    assert [answer.state for answer in answers] == ["changed", "changed"]


@pytest.mark.servers
async def test_at_the_memory_limit_a_withdrawal_holds(full: Bench) -> None:
    event = an_event(Step(Channel.SMS, NEVER))
    (sms,) = await routed(full.flights, event, "u1")
    await fill(full)
    assert await full.flights.withdraw(event.id, [sms.id]) == 1


@pytest.mark.servers
async def test_at_the_memory_limit_every_outcome_is_recorded(full: Bench) -> None:
    await routed(full.flights, an_event(Step(Channel.SMS, 0)), "u1", "u2")
    again, late = await full.sending(Channel.SMS)
    await fill(full)
    failed = Ending(again, Status.FAILED, {}, retry_in_ms=1, retry_reason=Reason.PROVIDER_DOWN)
    nobodys = replace(late, token="another")
    assert await full.attempts.record([failed]) == [True]
    assert await full.attempts.record([Ending(nobodys, Status.SENT, {})]) == [False]
