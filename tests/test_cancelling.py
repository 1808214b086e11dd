"""Stopping events by id and by filter: at once, and to the end whoever dies on the way (S7)."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

import pytest

from tests.served import ASHA, BINA, SETTINGS, Served, eventually, notification_of, problem_of, serving, storing
from tests.stored import ask
from tocsin.actors import cancelling
from tocsin.actors.fan_out import fan_out
from tocsin.actors.route import route
from tocsin.domain.delivery import Channel
from tocsin.domain.settings import Settings
from tocsin.storage import cancellations, queries
from tocsin.storage.flight_parts import Claim

pytestmark = pytest.mark.servers

AT_ONCE = {"notificationPriority": "HIGH"}
MANY = [{"id": f"u{number}", "email": f"u{number}@example.org"} for number in range(250)]


@pytest.fixture
async def served(settings: Callable[..., Settings], redis_url: str, postgres_url: str) -> AsyncIterator[Served]:
    async with serving(settings(SETTINGS), redis_url, postgres_url) as made, storing(made):
        yield made


async def counts(served: Served, event: str) -> dict[str, Any]:
    found: dict[str, Any] = (await served.api.get(f"/api/events/{event}")).json()
    assert await served.store.postgres.call(queries.miscounted, [UUID(event)], mend=False) == {}
    return found["counts"]["deliveries"] | {"reason": found["cancelReason"]}


async def stop(served: Served, **body: Any) -> dict[str, Any]:
    answer = await served.api.post("/api/events/cancel", json=body)
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def test_events_are_stopped_by_id_and_once(served: Served) -> None:
    one = await served.routed(**AT_ONCE, recipients=[ASHA, BINA], channels=["IN_APP", "EMAIL"])
    two = await served.routed(**AT_ONCE, recipients=[ASHA], channels=["EMAIL"])
    other = await served.routed(**AT_ONCE, recipients=[ASHA], channels=["EMAIL"])
    done = await stop(served, ids=[one["id"], two["id"]], reason="wrong list")
    assert (done["status"], done["eventCount"], done["cancelledCount"], done["by"]) == ("DONE", 2, 3, "admin")
    assert await counts(served, one["id"]) == {"DELIVERED": 2, "CANCELLED": 2, "reason": "wrong list"}
    assert await counts(served, other["id"]) == {"QUEUED": 1, "reason": None}
    again = await stop(served, ids=[one["id"]], reason="later")
    assert (again["status"], again["cancelledCount"]) == ("DONE", 0)
    assert (await counts(served, one["id"]))["reason"] == "wrong list"
    assert (await served.api.get(f"/api/cancellations/{done['id']}")).json() == done
    listed = (await served.api.get("/api/cancellations", params={"limit": "1"})).json()
    assert [each["id"] for each in listed["data"]] == [again["id"]]
    more = await served.api.get("/api/cancellations", params={"cursor": listed["nextCursor"]})
    assert [each["id"] for each in more.json()["data"]] == [done["id"]]


async def test_events_are_stopped_by_type_and_time_and_what_is_over_stays_as_it_was(served: Served) -> None:
    over = await served.routed(**AT_ONCE, type="event.reminder", recipients=[ASHA], channels=["IN_APP"])
    waits = await served.routed(**AT_ONCE, type="event.reminder", recipients=[ASHA], channels=["EMAIL"])
    unrouted = await served.posted(**AT_ONCE, type="event.reminder", recipients=[ASHA], channels=["EMAIL"])
    other = await served.routed(**AT_ONCE, type="event.approval", recipients=[ASHA], channels=["EMAIL"])
    nothing = await stop(served, type="event.reminder", to="2020-01-01T00:00:00Z")
    assert (nothing["status"], nothing["eventCount"]) == ("DONE", 0)
    done = await stop(served, type="EVENT_REMINDER", reason="postponed")
    assert (done["status"], done["eventCount"], done["cancelledCount"]) == ("DONE", 2, 1)
    later = await served.routed(**AT_ONCE, type="event.reminder", recipients=[ASHA], channels=["EMAIL"])
    await fan_out(served.store, unrouted["id"])
    await route(served.store, unrouted["id"], 0)
    await served.store.caught_up()
    assert await counts(served, over["id"]) == {"DELIVERED": 1, "reason": None}
    for event in (waits, unrouted):
        assert await counts(served, event["id"]) == {"CANCELLED": 1, "reason": "postponed"}
    for event in (other, later):
        assert await counts(served, event["id"]) == {"QUEUED": 1, "reason": None}


async def test_what_a_filter_finds_is_stopped_at_once_however_long_the_rest_takes(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancelling, "_AT_ONCE_S", 0.0)
    waits = await served.routed(**AT_ONCE, type="event.reminder", recipients=[ASHA], channels=["EMAIL"])
    unrouted = await served.posted(**AT_ONCE, type="event.reminder", recipients=[BINA], channels=["EMAIL"])
    untouched = await served.routed(**AT_ONCE, type="event.reminder", recipients=[ASHA], channels=["SMS"])
    other = await served.routed(**AT_ONCE, type="event.approval", recipients=[ASHA], channels=["EMAIL"])
    asked = await stop(served, type="event.reminder", reason="postponed")
    assert (asked["status"], asked["eventCount"]) == ("RUNNING", 0)
    later = await served.routed(**AT_ONCE, type="event.reminder", recipients=[ASHA], channels=["EMAIL"])
    await fan_out(served.store, unrouted["id"])
    await route(served.store, unrouted["id"], 0)
    claims = await served.store.attempts.claim(Channel.EMAIL, "t", 9, lease_ms=9_000, attempts=3, resend=True)
    assert {str(claim.event) for claim in claims} == {other["id"], later["id"]}
    await served.store.caught_up()
    # What was met is withdrawn already, with the reason.
    for event in (waits, unrouted):
        assert await counts(served, event["id"]) == {"CANCELLED": 1, "reason": "postponed"}
    done = await ended(served, asked["id"])
    assert (done["eventCount"], done["cancelledCount"]) == (3, 1)
    assert await counts(served, untouched["id"]) == {"CANCELLED": 1, "reason": "postponed"}
    assert await counts(served, other["id"]) == {"QUEUED": 1, "reason": None}
    assert await served.store.stops.held() == []
    assert await served.store._client.exists(served.store._keys.stops) == 0


async def test_a_person_is_stopped_at_once_too(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelling, "_AT_ONCE_S", 0.0)
    await served.routed(**AT_ONCE, recipients=[ASHA, BINA], channels=["EMAIL"])
    unrouted = await served.posted(**AT_ONCE, recipients=[ASHA, BINA], channels=["EMAIL"])
    asked = await stop(served, userId="asha", type="event.approval")
    await stop(served, userId="asha", type="event.reminder")
    await fan_out(served.store, unrouted["id"])
    await route(served.store, unrouted["id"], 0)
    claims = await served.store.attempts.claim(Channel.EMAIL, "t", 9, lease_ms=9_000, attempts=3, resend=True)
    assert [claim.user for claim in claims] == ["bina", "bina"]
    assert (await ended(served, asked["id"]))["eventCount"] == 0


async def test_what_only_redis_has_yet_is_stopped_and_comes_to_its_end(
    settings: Callable[..., Settings], redis_url: str, postgres_url: str
) -> None:
    nowhere = "postgresql://tocsin@127.0.0.1:1/tocsin"
    async with serving(settings(SETTINGS), redis_url, postgres_url) as served:
        async with serving(settings(SETTINGS), redis_url, nowhere) as alone:
            event = await alone.posted(**AT_ONCE, recipients=[ASHA], channels=["EMAIL"])
        asked = await stop(served, type="event.approval")
        assert (asked["status"], asked["eventCount"]) == ("RUNNING", 0)
        async with storing(served):
            assert (await ended(served, asked["id"]))["eventCount"] == 1
            await fan_out(served.store, event["id"])
            await route(served.store, event["id"], 0)
            await served.store.caught_up()
            assert await counts(served, event["id"]) == {"CANCELLED": 1, "reason": "withdrawn by its sender"}


async def test_with_postgres_away_it_is_stopped_and_followed_up_later(
    served: Served, settings: Callable[..., Settings], redis_url: str
) -> None:
    one = await served.routed(**AT_ONCE, recipients=[ASHA], channels=["EMAIL"])
    two = await served.routed(**AT_ONCE, type="event.reminder", recipients=[ASHA], channels=["EMAIL"])
    nowhere = "postgresql://tocsin@127.0.0.1:1/tocsin"
    async with serving(settings(SETTINGS), redis_url, nowhere) as alone:
        answers = [
            (await alone.api.post(f"/api/events/{one['id']}/cancel", json={"reason": "oh no"})).json(),
            await stop(alone, type="event.reminder", reason="oh no"),
        ]
        assert [answer["status"] for answer in answers] == ["RUNNING", "RUNNING"]
        assert await served.store.attempts.claim(Channel.EMAIL, "t", 9, lease_ms=9_000, attempts=3, resend=True) == []
    await served.store.caught_up()
    for identifier in (answers[0]["cancellationId"], answers[1]["id"]):
        assert (await ended(served, identifier))["eventCount"] == 1
    for event in (one, two):
        assert await counts(served, event["id"]) == {"CANCELLED": 1, "reason": "oh no"}


async def test_one_that_postgres_hears_of_in_a_moment_is_waited_for(
    settings: Callable[..., Settings], redis_url: str, postgres_url: str
) -> None:
    async with serving(settings(SETTINGS), redis_url, postgres_url) as served:
        async with serving(settings(SETTINGS), redis_url, "postgresql://tocsin@127.0.0.1:1/tocsin") as alone:
            asked = await stop(alone, type="event.reminder")
        asking = asyncio.create_task(served.api.get(f"/api/cancellations/{asked['id']}"))
        async with storing(served):
            answer = await asking
    assert (answer.status_code, answer.json()["status"]) == (200, "RUNNING")


async def test_a_filter_whose_work_is_done_is_let_go_though_its_process_died(served: Served) -> None:
    asked = await stop(served, type="event.reminder")
    found = await served.store.postgres.call(cancellations.cancellation, UUID(asked["id"]))
    assert found is not None
    await served.store.stops.hold(found)
    assert await served.store.stops.held() == [found.id]
    await cancelling.go_on(served.store)
    assert await served.store.stops.held() == []


async def ended(served: Served, identifier: str) -> dict[str, Any]:
    """The cancellation when it is done, whoever has it by now."""

    async def look() -> Any:
        await served.store.postgres.call(ask, "update cancellations set held_until = null")
        await cancelling.go_on(served.store)
        answer = (await served.api.get(f"/api/cancellations/{identifier}")).json()
        return answer if answer["status"] == "DONE" else None

    found: dict[str, Any] = await eventually(look)
    return found


async def test_ids_that_nothing_has_are_passed_over_and_alone_are_not_found(served: Served) -> None:
    nothing = "0199a0c0-0000-7000-8000-000000000000"
    one = await served.routed(**AT_ONCE, recipients=[ASHA], channels=["EMAIL"])
    done = await stop(served, ids=[nothing, one["id"]])
    assert (done["status"], done["eventCount"], done["ids"]) == ("DONE", 1, [one["id"]])
    problem_of(await served.api.post("/api/events/cancel", json={"ids": [nothing]}), 404, "not_found")


async def test_one_that_has_to_wait_holds_up_no_younger_one(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    await served.posted(**AT_ONCE, recipients=[ASHA, BINA], channels=["EMAIL"])
    waiting = await stop(served, userId="asha")
    monkeypatch.setattr(cancelling, "_AT_ONCE_S", 0.0)
    other = await served.routed(type="a.b", **AT_ONCE, recipients=[BINA], channels=["EMAIL"])
    younger = await stop(served, ids=[other["id"]])
    assert (waiting["status"], younger["status"]) == ("RUNNING", "RUNNING")
    monkeypatch.setattr(cancelling, "_A_TURN_S", 1.0)

    async def is_done() -> bool:
        await cancelling.go_on(served.store)
        return bool((await served.api.get(f"/api/cancellations/{younger['id']}")).json()["status"] == "DONE")

    await eventually(is_done)
    assert (await served.api.get(f"/api/cancellations/{waiting['id']}")).json()["status"] == "RUNNING"


async def test_one_person_s_notifications_are_stopped_alone_be_they_routed_or_not(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancelling, "_WAITS_MS", 1)
    routed = await served.routed(**AT_ONCE, recipients=[ASHA, BINA], channels=["EMAIL", "SMS"])
    unrouted = await served.posted(**AT_ONCE, recipients=[ASHA, BINA], channels=["IN_APP", "EMAIL"])
    asked = await stop(served, userId="asha", reason="moved away")
    # It is not over before that event is routed.
    assert (asked["status"], asked["cancelledCount"]) == ("RUNNING", 2)
    await fan_out(served.store, unrouted["id"])
    await route(served.store, unrouted["id"], 0)
    await served.store.caught_up()
    await cancelling.go_on(served.store)
    done = (await served.api.get(f"/api/cancellations/{asked['id']}")).json()
    assert (done["status"], done["cancelledCount"]) == ("DONE", 2)
    assert await counts(served, routed["id"]) == {"CANCELLED": 2, "QUEUED": 2, "reason": None}
    assert await counts(served, unrouted["id"]) == {"CANCELLED": 2, "DELIVERED": 1, "QUEUED": 1, "reason": None}


async def test_what_is_under_way_for_a_person_is_not_tried_again(served: Served) -> None:
    body = await served.routed(**AT_ONCE, recipients=[ASHA, BINA], channels=["EMAIL"])
    attempts = served.store.attempts
    claims = await attempts.claim(Channel.EMAIL, "t1", 2, lease_ms=300, attempts=3, resend=True)
    await attempts.begin(claims, "t1", lease_ms=300, detail={"provider": "smtp"})
    assert (await stop(served, userId="asha"))["cancelledCount"] == 0
    claimed: list[Claim] = []

    async def both_leases_ended() -> bool:
        claimed.extend(await attempts.claim(Channel.EMAIL, "t2", 2, lease_ms=30_000, attempts=3, resend=True))
        await served.store.caught_up()
        standing = await counts(served, body["id"])
        return bool(claimed) and "SENDING" not in standing

    await eventually(both_leases_ended)
    (claim,) = claimed
    assert claim.notification == notification_of(body, "bina")
    assert await counts(served, body["id"]) == {"UNCERTAIN": 1, "RETRYING": 1, "reason": None}


async def test_many_are_stopped_page_by_page_by_whoever_goes_on(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancelling, "_PAGE", 40)
    monkeypatch.setattr(cancelling, "_AT_ONCE_S", 0.0)
    body = await served.routed(**AT_ONCE, recipients=MANY, channels=["EMAIL"])
    answer = (await served.api.post(f"/api/events/{body['id']}/cancel", json={"reason": "oh no"})).json()
    assert (answer["status"], answer["cancelledCount"]) == ("RUNNING", 0)
    # It is stopped already.
    assert await served.store.attempts.claim(Channel.EMAIL, "t", 9, lease_ms=9_000, attempts=3, resend=True) == []
    # Somebody takes it, does a part and is killed; another goes on after a while.
    taken = await served.store.postgres.call(cancellations.take, 30_000)
    assert taken is not None
    assert await served.store.postgres.call(cancellations.take, 30_000) is None
    for _ in range(3):
        assert await cancelling._rows(served.store, taken)
    await served.store.postgres.call(cancellations.keep, taken, 200)

    async def is_done() -> bool:
        await cancelling.go_on(served.store)
        done = await served.api.get(f"/api/cancellations/{answer['cancellationId']}")
        return bool(done.json()["status"] == "DONE")

    await eventually(is_done)
    assert await counts(served, body["id"]) == {"CANCELLED": 250, "reason": "oh no"}
    done = (await served.api.get(f"/api/cancellations/{answer['cancellationId']}")).json()
    assert 150 <= done["cancelledCount"] <= 250


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "missing_field"),
        ({"reason": "x"}, "missing_field"),
        ({"ids": []}, "too_short"),
        ({"ids": ["0199a0c0-0000-7000-8000-000000000000"], "type": "a.b"}, "invalid_value"),
        ({"ids": ["no id"]}, "bad_format"),
        ({"userId": "a b"}, "bad_user_id"),
        ({"from": "yesterday"}, "bad_format"),
        ({"everything": True}, "unknown_field"),
    ],
)
async def test_what_is_to_be_stopped_has_to_be_said(served: Served, body: dict[str, Any], code: str) -> None:
    problem_of(await served.api.post("/api/events/cancel", json=body), 422, code)
