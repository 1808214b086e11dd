"""What becomes known from elsewhere settles an attempt in doubt at once, and stops what waits because of the doubt."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.scenes import an_event, routed
from tests.served import ASHA, SETTINGS, Served, notification_of, problem_of, serving
from tests.stored import ask
from tests.test_http_people import Twilio
from tests.workbench import GONE_MS, LEASE_MS, Bench
from tocsin.domain import ids
from tocsin.domain.delivery import Channel, Reason, Status, key
from tocsin.domain.errors import Conflict
from tocsin.domain.plan import Step
from tocsin.domain.settings import Settings
from tocsin.domain.settlement import settlement
from tocsin.storage.flight_parts import Claim, Ending
from tocsin.storage.settling import Settling, Telling
from tocsin.storage.store import Store


def settling(bench: Bench) -> Settling:
    return Settling(bench.scripts)


def telling(claim: Claim, status: Status, attempt: int = 1, word: str | None = None) -> Telling:
    return Telling(claim.notification, claim.step, claim.channel, attempt, status, {}, word)


async def waiting_again(bench: Bench, *, after_ms: int = 0) -> Claim:
    """An SMS whose first attempt is uncertain and whose second one waits."""
    await routed(bench.flights, an_event(Step(Channel.SMS, 0)), "u1")
    (claim,) = await bench.sending(Channel.SMS)
    ending = Ending(claim, Status.UNCERTAIN, {}, retry_in_ms=after_ms, retry_reason=Reason.TIMEOUT)
    assert await bench.attempts.record([ending]) == [True]
    return claim


@pytest.mark.parametrize("status", [Status.SENT, Status.DELIVERED])
async def test_a_receipt_that_comes_while_the_next_attempt_waits_stops_it(bench: Bench, status: Status) -> None:
    claim = await waiting_again(bench)
    assert await settling(bench).tell([telling(claim, status, word="sent")]) == [True]
    assert await bench.claim(Channel.SMS, "t2") == []
    assert await bench.leftovers() == set()
    assert (await bench.moves())[-2:] == [("SMS", 1, status, {}), ("SMS", 2, "CANCELLED", {"reason": "settled"})]


async def test_a_receipt_stops_what_is_claimed_and_has_not_begun(bench: Bench) -> None:
    claim = await waiting_again(bench)
    (again,) = await bench.claim(Channel.SMS, "t2")
    assert await settling(bench).tell([telling(claim, Status.SENT)]) == [True]
    assert await bench.attempts.begin([again], "t2", lease_ms=LEASE_MS, detail={}) == [False]


async def test_a_receipt_leaves_the_attempt_that_is_being_sent_to_its_holder(bench: Bench) -> None:
    claim = await waiting_again(bench)
    (again,) = await bench.sending(Channel.SMS, "t2")
    assert await settling(bench).tell([telling(claim, Status.SENT)]) == [False]
    await bench.attempts.record([Ending(again, Status.SENT, {})])
    assert await bench.leftovers() == set()


async def test_a_message_that_came_back_does_not_stop_the_next_attempt(bench: Bench) -> None:
    claim = await waiting_again(bench)
    assert await settling(bench).tell([telling(claim, Status.BOUNCED)]) == [False]
    assert len(await bench.claim(Channel.SMS, "t2")) == 1


@pytest.mark.parametrize("status", [Status.SENT, Status.BOUNCED])
@pytest.mark.parametrize("lease_ms", [GONE_MS, LEASE_MS])
async def test_a_receipt_settles_at_once_what_its_holder_has_not_recorded(
    bench: Bench, status: Status, lease_ms: int
) -> None:
    await routed(bench.flights, an_event(Step(Channel.SMS, 0)), "u1")
    (claim,) = await bench.sending(Channel.SMS, lease_ms=lease_ms)
    assert await settling(bench).tell([telling(claim, status)]) == [True]
    assert await bench.leftovers() == set()
    assert await bench.claim(Channel.SMS, "t2", resend=True) == []
    late = Ending(claim, Status.UNCERTAIN, {}, retry_in_ms=0, retry_reason=Reason.TIMEOUT)
    assert await bench.attempts.record([late]) == [False]
    assert await bench.leftovers() == set()


async def test_other_steps_of_the_notification_go_on(bench: Bench) -> None:
    await routed(bench.flights, an_event(Step(Channel.SMS, 0), Step(Channel.EMAIL, 0)), "u1")
    (claim,) = await bench.sending(Channel.SMS)
    await settling(bench).tell([telling(claim, Status.DELIVERED)])
    assert [each.channel for each in await bench.claim(Channel.EMAIL, "t2")] == [Channel.EMAIL]


async def test_being_told_again_changes_nothing_more(bench: Bench) -> None:
    claim = await waiting_again(bench)
    told = [telling(claim, Status.SENT, word="sent")]
    fact = {"f": "callback", "id": "SM1"}
    assert [await settling(bench).tell(told, [fact]) for _ in range(2)] == [[True], [False]]
    entries = await bench.client.xrange(bench.keys.facts)
    assert all('"callback"' in fields["d"] and '"moved"' in fields["d"] for _, fields in entries[-2:])
    assert await bench.leftovers() == set()


async def test_facts_alone_are_kept(bench: Bench) -> None:
    assert await settling(bench).tell([], [{"f": "callback"}]) == []
    assert await bench.facts() == [{"f": "callback"}]


UNCERTAIN = {key(1, Status.SENDING): {"at": 1}, key(1, Status.UNCERTAIN): {"at": 2}}
WAITING = UNCERTAIN | {key(2, Status.RETRYING): {"at": 3, "due": 9}}
TWICE = WAITING | {key(2, Status.UNCERTAIN): {"at": 4}}
SENT = {key(1, Status.SENT): {"at": 2}}
SETTLED = UNCERTAIN | {key(1, Status.FAILED): {"at": 5, "reason": "settled"}}
REPLAYED = SETTLED | {key(2, Status.RETRYING): {"at": 6, "reason": "replayed"}}


@pytest.mark.parametrize(
    ("history", "answer", "told"),
    [
        (UNCERTAIN, Status.SENT, [(1, Status.SENT)]),
        (UNCERTAIN, Status.DELIVERED, [(1, Status.DELIVERED)]),
        (UNCERTAIN, Status.FAILED, [(1, Status.FAILED)]),
        (WAITING, Status.SENT, [(1, Status.SENT)]),
        (TWICE, Status.FAILED, [(1, Status.FAILED), (2, Status.FAILED)]),
        (TWICE, Status.SENT, [(2, Status.SENT)]),
        (SENT, Status.DELIVERED, [(1, Status.DELIVERED)]),
        (SENT, Status.FAILED, [(1, Status.BOUNCED)]),
        (SETTLED, Status.FAILED, []),
        (SETTLED, Status.SENT, [(1, Status.SENT)]),
        (REPLAYED, Status.SENT, [(1, Status.SENT)]),
    ],
)
def test_a_person_is_taken_to_speak_of_the_attempts_in_doubt(
    history: dict[str, Any], answer: Status, told: list[tuple[int, Status]]
) -> None:
    assert settlement(history, answer) == told


@pytest.mark.parametrize(
    ("history", "answer"),
    [
        (SENT, Status.SENT),
        ({key(1, Status.DELIVERED): {"at": 1}}, Status.FAILED),
        ({key(1, Status.FAILED): {"at": 1, "reason": "rejected"}}, Status.SENT),
        ({key(1, Status.QUEUED): {"at": 1}}, Status.SENT),
        (UNCERTAIN | {key(2, Status.SENT): {"at": 3}}, Status.SENT),
        (REPLAYED, Status.FAILED),
    ],
)
def test_what_is_not_in_doubt_cannot_be_settled(history: dict[str, Any], answer: Status) -> None:
    with pytest.raises(Conflict):
        settlement(history, answer)


@pytest.fixture
async def served(settings: Callable[..., Settings], redis_url: str, postgres_url: str) -> AsyncIterator[Served]:
    async with serving(settings(SETTINGS), redis_url, postgres_url) as made:
        yield made


async def in_doubt(served: Served, *, again_in_ms: int | None = None) -> str:
    """The id of an SMS whose outcome is unknown; with `again_in_ms` another attempt waits."""
    note = notification_of(await served.routed(recipients=[ASHA], channels=["SMS"]), "asha")
    (claim,) = await claimed(served.store)
    await served.store.attempts.begin([claim], claim.token, lease_ms=LEASE_MS, detail={"provider": "sandbox"})
    ending = Ending(claim, Status.UNCERTAIN, {"reason": Reason.TIMEOUT}, again_in_ms, Reason.TIMEOUT)
    await served.store.attempts.record([ending])
    await served.stored()
    return str(ids.delivery_id(note, claim.step, Channel.SMS))


async def claimed(store: Store, token: str = "t1") -> list[Claim]:
    return await store.attempts.claim(Channel.SMS, token, 10, lease_ms=LEASE_MS, attempts=3, resend=False)


async def settle(served: Served, delivery: str, outcome: str, **more: str) -> Any:
    drain = served.store.caught_up

    async def caught_up(limit_s: float = 2.0) -> bool:
        await served.stored()
        return await drain(limit_s)

    # No actors run here: what a persister would do at the nudge is done in its place.
    served.store.caught_up = caught_up  # type: ignore[method-assign]
    return await served.api.post(f"/api/deliveries/{delivery}/settle", json={"outcome": outcome, **more})


@pytest.mark.servers
async def test_a_person_settles_what_is_uncertain_and_the_journey_says_who_and_why(served: Served) -> None:
    delivery = await in_doubt(served)
    answer = await settle(served, delivery, "DELIVERED", note="she told me", providerId="SM77")
    assert (answer.status_code, answer.json()["status"], answer.json()["providerId"]) == (200, "DELIVERED", "SM77")
    journey = (await served.api.get(f"/api/notifications/{answer.json()['notificationId']}/journey")).json()["journey"]
    told = next(step for step in journey if step["method"])
    assert (told["what"], told["reason"], told["method"], told["note"], told["confidence"]) == (
        "DELIVERED", "settled", "person", "she told me", "high",
    )  # fmt: skip
    assert told["by"]
    ((detail,),) = await served.store.postgres.call(_audited)
    assert detail == {"delivery": delivery, "outcome": "DELIVERED", "attempts": [1]}


@pytest.mark.servers
async def test_an_answer_stops_the_attempt_that_waits(served: Served) -> None:
    delivery = await in_doubt(served, again_in_ms=0)
    assert (await settle(served, delivery, "SENT")).json()["status"] == "SENT"
    assert await claimed(served.store, "t2") == []


@pytest.mark.servers
async def test_a_failure_that_is_settled_lets_the_attempt_that_waits_go_on(served: Served) -> None:
    delivery = await in_doubt(served, again_in_ms=0)
    assert (await settle(served, delivery, "FAILED")).json()["status"] == "RETRYING"
    assert len(await claimed(served.store, "t2")) == 1


@pytest.mark.servers
async def test_the_same_answer_twice_is_one_and_another_is_refused_once_it_is_final(served: Served) -> None:
    delivery = await in_doubt(served)
    assert [(await settle(served, delivery, "DELIVERED")).status_code for _ in range(2)] == [200, 200]
    body = problem_of(await settle(served, delivery, "FAILED"), 409, "conflict")
    assert "DELIVERED" in body["detail"]
    assert len(await served.store.postgres.call(_audited)) == 1


@pytest.mark.servers
async def test_what_came_back_according_to_a_person_bounced(served: Served) -> None:
    delivery = await in_doubt(served)
    await settle(served, delivery, "SENT")
    assert (await settle(served, delivery, "FAILED")).json()["status"] == "BOUNCED"


@pytest.mark.servers
async def test_only_senders_may_settle_and_only_what_is_there(served: Served) -> None:
    delivery = await in_doubt(served)
    path = f"/api/deliveries/{delivery}/settle"
    viewer = served.client(await served.key("VIEWER"))
    problem_of(await viewer.post(path, json={"outcome": "SENT"}), 403, "forbidden")
    problem_of(await served.api.post(path, json={"outcome": "CANCELLED"}), 422, "invalid_value")
    problem_of(await settle(served, "0199a0c0-0000-8000-8000-000000000000", "SENT"), 404, "not_found")


@pytest.mark.servers
async def test_a_late_receipt_over_http_stops_the_attempt_that_waits(served: Served) -> None:
    await in_doubt(served, again_in_ms=0)
    (row,) = (await served.api.get("/api/deliveries?userId=asha&channel=SMS")).json()["data"]
    assert row["status"] == "RETRYING"
    assert (await Twilio(served, row["notificationId"], row["step"]).tells("delivered")).status_code == 204
    assert await claimed(served.store, "t2") == []
    await served.stored()
    assert (await served.api.get(f"/api/deliveries/{row['id']}")).json()["status"] == "DELIVERED"
    ((named, attempt, word, provider_id),) = await served.store.postgres.call(_callbacks)
    assert (str(named), attempt, word, provider_id) == (row["id"], 1, "delivered", "SM1")


def _audited() -> list[Any]:
    return ask("select detail from audit_log where action = 'delivery.settled'")


def _callbacks() -> list[Any]:
    return ask("select delivery_id, attempt, word, provider_id from callbacks")
