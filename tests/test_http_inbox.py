"""What a person gets over HTTP: the inbox, reading it, following it, and how each delivery fares."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest

from tests.open_page import opened
from tests.served import ASHA, BINA, SETTINGS, Served, notification_of, problem_of, serving
from tocsin.domain.settings import Settings

pytestmark = pytest.mark.servers

MISSING = "0199a0c0-0000-8000-8000-000000000000"


@pytest.fixture
async def served(settings: Callable[..., Settings], redis_url: str, postgres_url: str) -> AsyncIterator[Served]:
    async with serving(settings(SETTINGS), redis_url, postgres_url) as made:
        yield made


async def notes(served: Served, count: int, *people: dict[str, Any]) -> list[UUID]:
    """The notifications of the first of `people`, oldest first."""
    first, *_ = people = people or (ASHA,)
    posted = [await served.routed(message=f"message {n}", recipients=list(people)) for n in range(count)]
    return [notification_of(body, first["id"]) for body in posted]


async def test_an_inbox_is_shown_newest_first_and_page_by_page(served: Served) -> None:
    ids = await notes(served, 7)
    asha = served.user("asha")
    seen: list[str] = []
    cursor: str | None = None
    for expected in (3, 3, 1):
        params = {"limit": "3"} | ({"cursor": cursor} if cursor else {})
        page = (await asha.get("/api/notifications", params=params)).json()
        assert len(page["data"]) == expected
        seen += [entry["id"] for entry in page["data"]]
        cursor = page["nextCursor"]
    assert cursor is None
    assert seen == [str(note) for note in reversed(ids)]


async def test_an_entry_shows_before_postgres_has_it_and_once_while_both_do(served: Served) -> None:
    from tocsin.actors.fan_out import fan_out
    from tocsin.actors.route import route

    body = await served.posted(title="Approved", recipients=[ASHA], metadata={"actionUrl": "/events/9"})
    await fan_out(served.store, body["id"])
    await route(served.store, body["id"], 0)
    asha = served.user("asha")
    (before,) = (await asha.get("/api/notifications")).json()["data"]
    assert (await asha.get("/api/notifications/unread-count")).json() == {"unreadCount": 1}
    await served.stored()
    (after,) = (await asha.get("/api/notifications")).json()["data"]
    assert before == after
    assert before["read"] is False
    assert (before["title"], before["metadata"]) == ("Approved", {"actionUrl": "/events/9"})
    assert (before["id"], before["eventId"]) == (str(notification_of(body, "asha")), body["id"])
    assert before["createdAt"].endswith("Z")
    assert datetime.fromisoformat(before["createdAt"]).microsecond % 1000 == 0


async def test_a_read_is_answered_in_the_shape_that_was_promised(served: Served) -> None:
    (note,) = await notes(served, 1)
    first = await served.user("asha").post(f"/api/notifications/{note}/read")
    assert first.status_code == 200
    body = first.json()
    assert body.keys() == {"success", "notification"}
    assert body["notification"].keys() == {"id", "read", "readAt"}
    assert (body["success"], body["notification"]["id"], body["notification"]["read"]) == (True, str(note), True)
    again = await served.user("asha").post(f"/api/notifications/{note}/read")
    assert again.json() == body


async def test_a_read_that_comes_before_the_routing_waits_for_it(served: Served) -> None:
    from tocsin.actors.fan_out import fan_out
    from tocsin.actors.route import route

    body = await served.posted(recipients=[ASHA], deliveryStrategy="ESCALATION")
    note = notification_of(body, "asha")
    early = asyncio.create_task(served.user("asha").post(f"/api/notifications/{note}/read"))
    await asyncio.sleep(0)
    await fan_out(served.store, body["id"])
    await route(served.store, body["id"], 0)
    assert (await early).json()["notification"]["read"] is True


async def test_read_multiple_names_only_what_changed(served: Served) -> None:
    one, two, three = await notes(served, 3)
    theirs = (await notes(served, 1, BINA))[0]
    asha = served.user("asha")
    await asha.post(f"/api/notifications/{one}/read")
    asked = [str(each) for each in (one, two, theirs, two, three)] + [MISSING]
    answer = await asha.post("/api/notifications/read-multiple", json={"notificationIds": asked})
    assert answer.json() == {"success": True, "updatedCount": 2, "updatedIds": [str(two), str(three)]}
    again = await asha.post("/api/notifications/read-multiple", json={"notificationIds": asked})
    assert again.json() == {"success": True, "updatedCount": 0, "updatedIds": []}
    assert (await served.user("bina").get("/api/notifications/unread-count")).json() == {"unreadCount": 1}


async def test_read_all_counts_only_what_changed(served: Served) -> None:
    ids = await notes(served, 3, ASHA, BINA)
    asha = served.user("asha")
    await asha.post(f"/api/notifications/{ids[0]}/read")
    assert (await asha.post("/api/notifications/read-all")).json() == {"success": True, "updatedCount": 2}
    assert (await asha.post("/api/notifications/read-all")).json() == {"success": True, "updatedCount": 0}
    assert (await asha.get("/api/notifications?unread=true")).json()["data"] == []
    assert (await served.user("bina").get("/api/notifications/unread-count")).json() == {"unreadCount": 3}


async def test_what_takes_no_body_refuses_one_instead_of_passing_it_by(served: Served) -> None:
    asha = served.user("asha")
    wanted = await asha.post("/api/notifications/read-all", json={"type": "event.approval"})
    assert problem_of(wanted, 422, "unknown_field")["field"] == "/type"
    problem_of(await asha.post("/api/notifications/read-all", content=b"{{"), 400, "malformed_json")
    for nothing in (b"", b"{}", b" null\n"):
        assert (await asha.post("/api/notifications/read-all", content=nothing)).status_code == 200


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({}, "missing_field", "/notificationIds"),
        ({"notificationIds": []}, "too_short", "/notificationIds"),
        ({"notificationIds": ["x"]}, "bad_format", "/notificationIds/0"),
        ({"notificationIds": [MISSING] * 1001}, "too_many", "/notificationIds"),
        ({"ids": [MISSING]}, "unknown_field", "/ids"),
    ],
)
async def test_read_multiple_says_what_is_wrong(served: Served, body: dict[str, Any], code: str, field: str) -> None:
    answer = await served.user("asha").post("/api/notifications/read-multiple", json=body)
    found = problem_of(answer, 422, code)
    assert field in [error["field"] for error in found["errors"]]


async def test_delivery_status_is_answered_in_the_shape_that_was_promised(served: Served) -> None:
    body = await served.routed(recipients=[ASHA], deliveryStrategy="ESCALATION")
    note = notification_of(body, "asha")
    for client in (served.api, served.user("asha")):
        answer = (await client.get(f"/api/notifications/{note}/delivery-status")).json()
        assert answer.keys() == {"notification", "deliveries"}
        assert answer["notification"]["id"] == str(note)
        shown = {each["channel"]: each for each in answer["deliveries"]}
        promised = {"id", "channel", "status", "attemptCount", "scheduledFor", "sentAt", "deliveredAt", "error"}
        assert all(promised <= each.keys() for each in shown.values())
        assert {channel: each["status"] for channel, each in shown.items()} == {
            "IN_APP": "DELIVERED",
            "PUSH": "SUPPRESSED",
            "SMS": "SCHEDULED",
            "EMAIL": "SCHEDULED",
        }
        assert shown["PUSH"]["reason"] == "no_address"
        start, sms = (datetime.fromisoformat(shown[channel]["scheduledFor"]) for channel in ("IN_APP", "SMS"))
        assert (sms - start).total_seconds() == 600


async def test_a_journey_tells_everything_in_order(served: Served) -> None:
    note = notification_of(await served.routed(recipients=[ASHA], deliveryStrategy="ESCALATION"), "asha")
    await served.user("asha").post(f"/api/notifications/{note}/read")
    await served.stored()
    told = (await served.api.get(f"/api/notifications/{note}/journey")).json()["journey"]
    assert [step["at"] for step in told] == sorted(step["at"] for step in told)
    assert told[0]["what"] == "ACCEPTED"
    whole = [(step["what"], step["channel"], step["reason"]) for step in told]
    assert ("READ", None, None) in whole
    assert ("CANCELLED", "SMS", "read") in whole
    assert ("CANCELLED", "EMAIL", "read") in whole


async def test_an_event_that_is_cancelled_sends_nothing_more(served: Served) -> None:
    body = await served.routed(recipients=[ASHA, BINA], deliveryStrategy="ESCALATION")
    drains = asyncio.create_task(_keep_storing(served))
    answer = await served.api.post(f"/api/events/{body['id']}/cancel", json={"reason": "sent by mistake"})
    told = answer.json()
    assert (told["success"], told["id"], told["cancelledCount"], told["status"]) == (True, body["id"], 4, "DONE")
    again = await served.api.post(f"/api/events/{body['id']}/cancel")
    assert again.json()["cancelledCount"] == 0
    event = (await served.api.get(f"/api/events/{body['id']}")).json()
    assert (event["cancelReason"], event["cancelledBy"]) == ("sent by mistake", "admin")
    assert event["counts"]["deliveries"] == {"DELIVERED": 2, "SUPPRESSED": 2, "CANCELLED": 4}
    assert event["counts"]["suppressed"] == {"no_address": 2}
    problem_of(await served.api.post(f"/api/events/{MISSING}/cancel"), 404, "not_found")
    problem_of(await served.api.post(f"/api/events/{body['id']}/cancel", json={"why": "x"}), 422, "unknown_field")
    drains.cancel()


async def test_deliveries_are_found_by_person_reference_status_channel_and_time(served: Served) -> None:
    body = await served.routed(recipients=[ASHA, BINA], deliveryStrategy="ESCALATION")
    note = notification_of(body, "asha")

    async def found(**query: str) -> list[tuple[str, str]]:
        answer = await served.api.get("/api/deliveries", params=query)
        assert answer.status_code == 200, answer.text
        return sorted((each["recipientId"], each["channel"]) for each in answer.json()["data"])

    everything = [(user, channel) for user in ("asha", "bina") for channel in ("EMAIL", "IN_APP", "PUSH", "SMS")]
    assert await found() == everything
    assert await found(userId="asha") == everything[:4]
    assert await found(reference=body["id"]) == everything
    assert await found(reference=str(note), status="SCHEDULED") == [("asha", "EMAIL"), ("asha", "SMS")]
    assert await found(channel="SMS", to="2020-01-01T00:00:00Z") == []
    assert await found(channel="SMS", **{"from": "2020-01-01T00:00:00+05:30"}) == [("asha", "SMS"), ("bina", "SMS")]
    first = (await served.api.get("/api/deliveries?limit=5")).json()
    rest = (await served.api.get("/api/deliveries", params={"limit": "5", "cursor": first["nextCursor"]})).json()
    assert (len(first["data"]), len(rest["data"]), rest["nextCursor"]) == (5, 3, None)
    one = first["data"][0]
    assert (await served.api.get(f"/api/deliveries/{one['id']}")).json() == one
    problem_of(await served.api.get(f"/api/deliveries/{MISSING}"), 404, "not_found")


@pytest.mark.parametrize(
    ("query", "code", "field"),
    [
        ("status=LOST", "invalid_value", "status"),
        ("channel=PIGEON", "unknown_channel", "channel"),
        ("limit=0", "out_of_range", "limit"),
        ("limit=ten", "wrong_type", "limit"),
        ("from=yesterday", "bad_format", "from"),
        ("from=2020-01-01T00:00:00", "bad_format", "from"),
        ("cursor=x", "bad_cursor", "cursor"),
        ("colour=red", "unknown_field", "colour"),
        ("userId=a%20b", "bad_user_id", "userId"),
    ],
)
async def test_each_bad_parameter_is_named(served: Served, query: str, code: str, field: str) -> None:
    assert problem_of(await served.api.get(f"/api/deliveries?{query}"), 422, code)["field"] == field


def ids(told: list[tuple[str, dict[str, Any], str | None]]) -> list[str]:
    return [data["id"] for event, data, _ in told if event == "notification"]


async def test_an_open_page_is_told_of_each_new_notification_once(served: Served) -> None:
    await notes(served, 1)
    async with opened(served, "asha") as page, opened(served, "asha") as other, opened(served, "bina") as stranger:
        for each in (page, other, stranger):
            await each.told(lambda told: any(event == "unread" for event, _, _ in told))
        fresh = [str(note) for note in await notes(served, 3)]
        for each in (page, other):
            told = await each.told(lambda told: len(ids(told)) >= 3)
            assert ids(told) == fresh
        await page.told(lambda told: {"unreadCount": 4} in [data for event, data, _ in told if event == "unread"])
        await served.user("asha").post("/api/notifications/read-all")
        await page.told(lambda told: told[-1][1] == {"unreadCount": 0})
        assert ids(stranger.events()) == []


async def test_a_page_that_was_away_is_told_what_it_missed_and_nothing_twice(served: Served) -> None:
    async with opened(served, "asha") as page:
        await page.told(lambda told: len(told) >= 1)
        first = await notes(served, 1)
        told = await page.told(lambda told: len(ids(told)) == 1)
        last = next(identifier for event, _, identifier in told if event == "notification")
    assert last is not None
    missed = await notes(served, 2)
    async with opened(served, "asha", **{"last-event-id": last}) as page:
        told = await page.told(lambda told: len(ids(told)) >= 2)
        later = await notes(served, 1)
        told = await page.told(lambda told: len(ids(told)) >= 3)
    assert ids(told) == [str(note) for note in [*missed, *later]]
    assert str(first[0]) not in ids(told)


async def test_a_stream_with_the_cache_off_shows_what_postgres_has(
    settings: Callable[..., Settings], redis_url: str, postgres_url: str
) -> None:
    async with serving(settings({**SETTINGS, "cache.enabled": False}), redis_url, postgres_url) as served:
        async with opened(served, "asha") as page:
            await page.told(lambda told: len(told) >= 1)
            fresh = await notes(served, 2)
            told = await page.told(lambda told: len(ids(told)) >= 2)
        assert ids(told) == [str(note) for note in fresh]
        assert await served.store._client.exists("notifications:asha") == 0


async def test_an_open_stream_ends_with_its_process(served: Served) -> None:
    async with opened(served, "asha") as page:
        await page.told(lambda told: len(told) >= 1)
        served.context.stopping.set()


async def test_a_stream_is_its_users_alone_and_refuses_a_false_place(served: Served) -> None:
    problem_of(await served.api.get("/api/stream"), 403, "user_token_needed")
    bad = await served.user("asha").get("/api/stream", headers={"Last-Event-ID": "yesterday"})
    problem_of(bad, 422, "bad_cursor")
    head = await served.user("asha").head("/api/stream")
    assert head.status_code == 200


async def _keep_storing(served: Served) -> None:
    while True:
        await served.stored()
        await asyncio.sleep(0.01)
