"""Posting events over HTTP: what is taken, what is refused, and what is answered."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

from tests.served import ADMIN_KEY, ASHA, BINA, EVENT, SETTINGS, Served, problem_of, serving
from tocsin.domain.settings import Settings

pytestmark = pytest.mark.servers


@pytest.fixture
async def served(settings: Callable[..., Settings], redis_url: str, postgres_url: str) -> AsyncIterator[Served]:
    async with serving(settings(SETTINGS), redis_url, postgres_url) as made:
        yield made


async def test_an_event_is_answered_in_the_shape_that_was_promised(served: Served) -> None:
    answer = await served.api.post("/api/notifications", json={**EVENT, "recipients": [ASHA, BINA]})
    assert answer.status_code == 202, answer.text
    body = answer.json()
    assert {"success": True, "message": "Notification queued for delivery", "recipientCount": 2}.items() <= body.items()
    assert body["durability"] == "postgres"
    assert [each["recipientId"] for each in body["notifications"]] == ["asha", "bina"]
    assert len({each["id"] for each in body["notifications"]} | {body["id"]}) == 3


async def test_a_request_leaves_nothing_for_the_garbage_collector(served: Served) -> None:
    headers = {"authorization": f"Bearer {ADMIN_KEY}", "content-type": "application/json"}
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    said = json.dumps({**EVENT, "recipients": [ASHA]}).encode()

    async def post() -> None:
        """Without a client, for that makes garbage of its own."""
        scope = {"type": "http", "method": "POST", "path": "/api/notifications", "query_string": b"", "headers": raw}
        await served.app(scope, receive, send)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": said, "more_body": False}

    async def send(told: Mapping[str, Any]) -> None:
        assert told.get("status", 202) == 202

    await post()
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            await post()
        assert gc.collect() < 100, "the collector looks seldom (cli/interpreter.py)"
    finally:
        gc.enable()


async def refused(served: Served, status: int, code: str, **event: Any) -> dict[str, Any]:
    answer = await served.api.post("/api/notifications", json=event)
    return problem_of(answer, status, code)


async def test_only_the_first_hundred_notifications_are_named(served: Served) -> None:
    body = await served.posted(recipients=[{"id": f"u{n}", "name": "x"} for n in range(250)])
    assert (body["recipientCount"], len(body["notifications"])) == (250, 100)


async def test_one_bad_recipient_among_many_is_listed_and_stops_nobody(served: Served) -> None:
    body = await served.posted(
        recipients=[
            ASHA,
            {"id": "no-plus", "phone": "9876543210"},
            {"id": "no-at", "email": "nobody.example.org"},
            {"id": "nowhere", "name": "x", "timezone": "Mars/Olympus"},
            {"id": "with space", "email": "a@example.org"},
            {"id": "no-text", "email": ""},
            {"id": "two-lines", "name": "one\ntwo"},
            {"id": "long", "name": "x" * 201},
            {"id": "nobody-speaks", "name": "x", "locale": "?"},
        ],
        recipientIds=["stranger", "x" * 129],
    )
    assert body["recipientCount"] == 1
    assert body["unknownIds"] == ["stranger"]
    assert body["rejectedRecipients"] == [
        {"id": "no-plus", "code": "bad_phone", "field": "phone"},
        {"id": "no-at", "code": "bad_email", "field": "email"},
        {"id": "nowhere", "code": "bad_timezone", "field": "timezone"},
        {"id": "with space", "code": "bad_user_id", "field": "id"},
        {"id": "no-text", "code": "bad_email", "field": "email"},
        {"id": "two-lines", "code": "bad_format", "field": "name"},
        {"id": "long", "code": "too_long", "field": "name"},
        {"id": "nobody-speaks", "code": "bad_format", "field": "locale"},
        {"id": "x" * 128, "code": "bad_user_id", "field": "id"},
    ]
    event = (await served.api.get(f"/api/events/{body['id']}")).json()
    assert (event["unknownIds"], event["counts"]["unknown"]) == (["stranger"], 1)


async def test_it_is_refused_when_no_recipient_remains(served: Served) -> None:
    for recipients in (
        {"recipientIds": ["stranger"]},
        {"recipients": [{"id": "u", "phone": "12"}]},
        {"recipientIds": []},
        {},
    ):
        await refused(served, 422, "no_recipients", **EVENT, **recipients)
    body = await refused(served, 422, "no_recipients", **EVENT, recipientIds=["stranger"])
    assert (body["unknownIds"], body["field"]) == (["stranger"], "/recipientIds")


async def test_why_nobody_remains_is_told_of_each(served: Served) -> None:
    bad = {"recipients": [{"id": "u", "phone": "12"}, {"id": "v", "email": "v"}], "recipientIds": ["with space"]}
    body = await refused(served, 422, "no_recipients", **EVENT, **bad)
    assert [(error["code"], error["field"]) for error in body["errors"]] == [
        ("bad_phone", "/recipients/0/phone"),
        ("bad_email", "/recipients/1/email"),
        ("bad_user_id", "/recipientIds/0"),
    ]
    assert all(error["mend"] for error in body["errors"])
    alone = await refused(served, 422, "no_recipients", **EVENT, recipients=[{"id": "u", "phone": "12"}])
    assert alone["field"] == "/recipients"


async def test_a_wrong_policy_is_told_before_anybody_is_looked_for(served: Served) -> None:
    await refused(served, 422, "unknown_policy", **EVENT, recipientIds=["stranger"], policy="nowhere")


async def test_one_mistake_is_told_once(served: Served) -> None:
    body = await refused(served, 422, "unknown_channel", **EVENT, recipients=[ASHA], channels=["PIGEON"])
    assert len(body["errors"]) == 1


async def test_a_compressed_body_is_told_so(served: Served) -> None:
    answer = await served.api.post(
        "/api/notifications", json={**EVENT, "recipients": [ASHA]}, headers={"Content-Encoding": "gzip"}
    )
    assert "Content-Encoding" in problem_of(answer, 415, "compressed")["mend"]


async def test_a_stored_user_needs_only_an_id_and_a_recipient_named_twice_counts_once(served: Served) -> None:
    assert (await served.api.put("/api/users/asha", json={"email": "asha@example.org"})).status_code == 200
    body = await served.posted(recipientIds=["asha", "asha"], recipients=[{"id": "asha"}, BINA, BINA])
    assert [each["recipientId"] for each in body["notifications"]] == ["bina", "asha"]


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"colour": "red"}, "unknown_field", "/colour"),
        ({"message": 7}, "wrong_type", "/message"),
        ({"message": ""}, "too_short", "/message"),
        ({"message": " \n"}, "too_short", "/message"),
        ({"message": "x" * 10_001}, "too_long", "/message"),
        ({"message": "a\0b"}, "bad_format", "/message"),
        ({"title": "x" * 201}, "too_long", "/title"),
        ({"title": "one\ntwo"}, "bad_format", "/title"),
        ({"channels": ["EMAIL", "PIGEON"]}, "unknown_channel", "/channels/1"),
        ({"channels": ["email"]}, "unknown_channel", "/channels/0"),
        ({"channels": []}, "too_short", "/channels"),
        ({"deliveryStrategy": "SHOUT"}, "unknown_strategy", "/deliveryStrategy"),
        ({"notificationPriority": "URGENT"}, "unknown_priority", "/notificationPriority"),
        ({"policy": "nowhere"}, "unknown_policy", "/policy"),
        (
            {"policy": "demo", "deliveryStrategy": "ESCALATION", "channels": ["PUSH"], "metadata": []},
            "wrong_type",
            "/metadata",
        ),
        ({"metadata": {"x": "y" * 20_000}}, "too_long", "/metadata"),
        ({"metadata": {"x": "a\0"}}, "bad_format", "/metadata"),
        ({"recipientIds": [7]}, "wrong_type", "/recipientIds/0"),
        ({"recipients": [{"email": "a@example.org"}]}, "missing_field", "/recipients/0/id"),
        ({"recipients": [{"id": "u", "fax": "1"}]}, "unknown_field", "/recipients/0/fax"),
        ({"type": "no spaces please"}, "bad_format", "/type"),
    ],
)
async def test_each_bad_value_has_its_own_problem_field_and_mend(
    served: Served, change: dict[str, Any], code: str, field: str
) -> None:
    body = await refused(served, 422, code, **{**EVENT, "recipients": [ASHA], **change})
    assert body["field"] == field
    assert body["errors"][0] == {"code": code, "field": field, "detail": body["detail"], "mend": body["mend"]}


@pytest.mark.parametrize("field", ["filters", "template", "data", "sendAt", "schedule", "tracking"])
async def test_what_is_not_built_is_refused_and_not_described(served: Served, field: str) -> None:
    body = await refused(served, 422, "not_available", **EVENT, recipients=[ASHA], **{field: None})
    assert body["field"] == f"/{field}"
    described = (await served.api.get("/openapi.json")).json()
    assert field not in described["components"]["schemas"]["PostNotification"]["properties"]


async def test_a_missing_message_and_type_are_told_at_once(served: Served) -> None:
    body = await refused(served, 422, "missing_field", recipients=[ASHA])
    assert [(error["code"], error["field"]) for error in body["errors"]] == [
        ("missing_field", "/type"),
        ("missing_field", "/message"),
    ]


@pytest.mark.parametrize("raw", [b"", b"{", b"not json", b'{"type": NaN', b"\xff\xfe", b'{"message": "\\ud800"}'])
async def test_a_body_that_is_no_json_is_told_so(served: Served, raw: bytes) -> None:
    answer = await served.api.post("/api/notifications", content=raw, headers={"Content-Type": "application/json"})
    problem_of(answer, 400, "malformed_json")


async def test_a_number_that_is_not_finite_is_refused(served: Served) -> None:
    raw = json.dumps({**EVENT, "recipients": [ASHA], "metadata": {"x": float("inf")}})
    answer = await served.api.post("/api/notifications", content=raw, headers={"Content-Type": "application/json"})
    problem_of(answer, 422, "invalid_value")


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16"]
)
async def test_a_body_of_another_type_is_refused(served: Served, kind: str) -> None:
    answer = await served.api.post("/api/notifications", content=b"{}", headers={"Content-Type": kind})
    problem_of(answer, 415, "wrong_content_type")


async def test_a_body_over_the_limit_is_refused_before_it_is_read(served: Served) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(1_000):
            yield b"x" * 100_000

    headers = {"Content-Type": "application/json"}
    answer = await served.api.post("/api/notifications", content=b"x" * 1_100_000, headers=headers)
    problem_of(answer, 413, "body_too_large")
    problem_of(await served.api.post("/api/notifications", content=endless(), headers=headers), 413, "body_too_large")


async def test_more_recipients_than_allowed_are_refused(served: Served) -> None:
    body = await refused(served, 422, "too_many", **EVENT, recipientIds=[f"u{n}" for n in range(10_001)])
    assert "10000" in body["detail"]


async def test_html_in_a_message_stays_text(served: Served) -> None:
    text = "<script>alert(1)</script> & <b>bold</b>"
    body = await served.routed(message=text, title="<i>t</i>", recipients=[ASHA])
    (entry,) = (await served.user("asha").get("/api/notifications")).json()["data"]
    assert (entry["message"], entry["title"]) == (text, "<i>t</i>")
    event = await served.api.get(f"/api/events/{body['id']}")
    assert event.json()["message"] == text
    assert event.headers["content-type"] == "application/json"
    assert event.headers["x-content-type-options"] == "nosniff"


async def test_what_was_asked_and_what_is_followed_are_both_kept(served: Served) -> None:
    critical = await served.posted(
        recipients=[ASHA], deliveryStrategy="ESCALATION", notificationPriority="CRITICAL", type="security.alert"
    )
    event = (await served.api.get(f"/api/events/{critical['id']}")).json()
    assert (event["askedStrategy"], event["deliveryStrategy"]) == ("ESCALATION", "BROADCAST")
    assert {step["afterMs"] for step in event["steps"]} == {0}
    low = await served.posted(recipients=[ASHA], type="COMMUNITY_UPDATE", metadata={"actionUrl": "/events/9"})
    event = (await served.api.get(f"/api/events/{low['id']}")).json()
    assert (event["type"], event["deliveryStrategy"], event["notificationPriority"]) == (
        "community.update",
        "ESCALATION",
        "LOW",
    )
    assert [(step["channel"], step["afterMs"]) for step in event["steps"]][2:] == [
        ("SMS", 600_000),
        ("EMAIL", 2_400_000),
    ]
    assert (event["source"], event["sender"], event["metadata"]) == ("api_action", "admin", {"actionUrl": "/events/9"})


async def test_an_escalation_without_any_of_the_channels_asked_for_is_refused(served: Served) -> None:
    async with serving(
        served.context.settings.with_values({"policies.sms_only": [{"channel": "SMS", "after": "0s"}]}),
        str(served.context.settings.redis.url),
        str(served.context.settings.postgres.url),
    ) as other:
        event = {**EVENT, "policy": "sms_only", "deliveryStrategy": "ESCALATION", "channels": ["EMAIL"]}
        await refused(other, 422, "no_steps", **event, recipients=[ASHA])


async def test_the_same_request_with_the_same_key_is_done_once(served: Served) -> None:
    event = {**EVENT, "recipients": [ASHA], "recipientIds": ["stranger"]}
    headers = {"Idempotency-Key": "order-17"}
    first = await served.api.post("/api/notifications", json=event, headers=headers)
    again = await served.api.post("/api/notifications", json=event, headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.content == first.content
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert len((await served.api.get("/api/events")).json()["data"]) == 1


async def test_a_key_holds_in_postgres_when_redis_was_emptied(served: Served) -> None:
    event, headers = {**EVENT, "recipients": [ASHA]}, {"Idempotency-Key": "order-18"}
    first = await served.api.post("/api/notifications", json=event, headers=headers)
    await served.store._client.flushdb()
    again = await served.api.post("/api/notifications", json=event, headers=headers)
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    await served.store._client.flushdb()
    other = await served.api.post("/api/notifications", json={**event, "title": "other"}, headers=headers)
    problem_of(other, 422, "idempotency_mismatch")


async def test_a_key_used_with_another_body_is_refused(served: Served) -> None:
    headers = {"Idempotency-Key": "order-19"}
    await served.api.post("/api/notifications", json={**EVENT, "recipients": [ASHA]}, headers=headers)
    other = await served.api.post("/api/notifications", json={**EVENT, "recipients": [BINA]}, headers=headers)
    problem_of(other, 422, "idempotency_mismatch")


async def test_a_repetition_that_comes_while_the_first_still_runs_is_told_to_wait(served: Served) -> None:
    event, headers = {**EVENT, "recipients": [ASHA]}, {"Idempotency-Key": "order-20"}
    answers = await asyncio.gather(
        *(served.api.post("/api/notifications", json=event, headers=headers) for _ in range(8))
    )
    ids = {answer.json()["id"] for answer in answers if answer.status_code == 202}
    waiting = [answer for answer in answers if answer.status_code != 202]
    assert len(ids) == 1
    assert waiting
    for answer in waiting:
        problem_of(answer, 409, "idempotency_running")
        assert answer.headers["retry-after"] == "1"


async def test_keys_of_different_callers_do_not_meet(served: Served) -> None:
    event, headers = {**EVENT, "recipients": [ASHA]}, {"Idempotency-Key": "order-21"}
    sender = served.client(await served.key("SENDER"))
    first = await served.api.post("/api/notifications", json=event, headers=headers)
    second = await sender.post("/api/notifications", json=event, headers=headers)
    assert first.json()["id"] != second.json()["id"]


async def test_a_refused_request_does_not_use_up_its_key(served: Served) -> None:
    headers = {"Idempotency-Key": "order-22"}
    bad = await served.api.post("/api/notifications", json={**EVENT, "recipientIds": ["later"]}, headers=headers)
    problem_of(bad, 422, "no_recipients")
    await served.api.put("/api/users/later", json={})
    good = await served.api.post("/api/notifications", json={**EVENT, "recipientIds": ["later"]}, headers=headers)
    assert good.status_code == 202, good.text


@pytest.mark.parametrize("key", ["", "with space", "é", "x" * 256])
async def test_a_key_that_is_not_in_the_right_form_is_refused(served: Served, key: str) -> None:
    headers = {"Idempotency-Key": key.encode("latin-1")}
    answer = await served.api.post("/api/notifications", json={**EVENT, "recipients": [ASHA]}, headers=headers)
    problem_of(answer, 422, "bad_idempotency_key")
