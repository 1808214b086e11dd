"""Posting many events at once over HTTP: each is answered on its own, and repeated on its own."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from loguru import logger

from tests.served import ASHA, BINA, EVENT, SETTINGS, Served, problem_of, serving
from tocsin.domain.settings import Settings
from tocsin.storage.accepted import Accepted

pytestmark = pytest.mark.servers


@pytest.fixture
async def served(settings: Callable[..., Settings], redis_url: str, postgres_url: str) -> AsyncIterator[Served]:
    async with serving(settings(SETTINGS), redis_url, postgres_url) as made:
        yield made


def break_down(served: Served, patch: pytest.MonkeyPatch) -> None:
    """From now on an event for Bina meets a defect of ours."""
    take = served.store._intake.take

    async def broken(row: Accepted) -> Any:
        if [person.id for person in row.recipients] == ["bina"]:
            raise RuntimeError("the secret is a quince")
        return await take(row)

    patch.setattr(served.store._intake, "take", broken)


async def test_each_event_of_a_bulk_is_answered_on_its_own(served: Served) -> None:
    events = [
        {**EVENT, "recipients": [ASHA]},
        {**EVENT, "recipientIds": ["stranger"]},
        {**EVENT, "recipients": [BINA], "policy": "nowhere"},
        {**EVENT, "recipients": [BINA]},
    ]
    answer = await served.api.post("/api/notifications/bulk", json={"notifications": events})
    assert answer.status_code == 202, answer.text
    body = answer.json()
    assert (body["accepted"], body["refused"]) == (2, 2)
    assert [(item["index"], item["status"], item["success"]) for item in body["results"]] == [
        (0, 202, True),
        (1, 422, False),
        (2, 422, False),
        (3, 202, True),
    ]
    assert body["results"][1]["problem"]["code"] == "no_recipients"
    assert body["results"][2]["problem"]["code"] == "unknown_policy"
    assert body["results"][3]["result"]["notifications"][0]["recipientId"] == "bina"


async def test_a_bulk_of_which_nothing_is_accepted_is_refused(served: Served) -> None:
    answer = await served.api.post(
        "/api/notifications/bulk", json={"notifications": [{**EVENT, "recipientIds": ["x"]}]}
    )
    body = problem_of(answer, 422, "nothing_accepted")
    assert body["results"][0]["problem"]["code"] == "no_recipients"


async def test_a_bulk_of_which_all_is_still_running_is_worth_repeating(served: Served) -> None:
    """Who took the first died with it: its key is free again after a minute."""
    client, asked = served.store._client, {"notifications": [{**EVENT, "recipients": [ASHA]}]}

    async def post() -> httpx.Response:
        return await served.api.post("/api/notifications/bulk", json=asked, headers={"Idempotency-Key": "k"})

    assert (await post()).status_code == 202
    (place,) = [name for name in await client.keys("*") if name.endswith(":bulk:0:k")]
    kept = json.loads(await client.get(place))
    await client.set(place, json.dumps({"hash": kept["hash"], "by": "another"}))
    answer = await post()
    body = problem_of(answer, 409, "idempotency_running")
    assert answer.headers["retry-after"] == "1"
    assert body["results"][0]["problem"]["code"] == "idempotency_running"


async def test_an_event_of_a_bulk_that_cannot_be_read_stops_no_other(served: Served) -> None:
    events = [{**EVENT, "template": "t"}, {**EVENT, "recipients": [ASHA]}, 5, {**EVENT, "recipients": [{"id": 7}]}]
    answer = await served.api.post("/api/notifications/bulk", json={"notifications": events})
    assert answer.status_code == 202, answer.text
    told = [(item["index"], item["status"], item["problem"] or {}) for item in answer.json()["results"]]
    assert [(index, status, problem.get("code"), problem.get("field")) for index, status, problem in told] == [
        (0, 422, "not_available", "/template"),
        (1, 202, None, None),
        (2, 422, "wrong_type", ""),
        (3, 422, "wrong_type", "/recipients/0/id"),
    ]


async def test_a_bulk_of_which_no_event_can_be_read_names_the_first_place(served: Served) -> None:
    events = [{**EVENT, "template": "t"}, {}]
    answer = await served.api.post("/api/notifications/bulk", json={"notifications": events})
    assert problem_of(answer, 422, "not_available")["field"] == "/notifications/0/template"
    for body in ({"notifications": []}, {"notifications": 5}, {"events": []}):
        assert (await served.api.post("/api/notifications/bulk", json=body)).status_code == 422


async def test_a_bulk_that_is_repeated_with_its_key_is_done_once(served: Served) -> None:
    events = [{**EVENT, "recipients": [ASHA]}, {**EVENT, "recipientIds": ["stranger"]}, {**EVENT, "recipients": [BINA]}]
    headers = {"Idempotency-Key": "bulk-1"}
    first = await served.api.post("/api/notifications/bulk", json={"notifications": events}, headers=headers)
    again = await served.api.post("/api/notifications/bulk", json={"notifications": events}, headers=headers)
    assert again.content == first.content
    assert again.headers["idempotency-replayed"] == "true"
    assert len((await served.api.get("/api/events")).json()["data"]) == 2
    more = {"notifications": [*events, {**EVENT, "recipients": [BINA]}]}
    other = await served.api.post("/api/notifications/bulk", json=more, headers=headers)
    problem_of(other, 422, "idempotency_mismatch")
    assert len((await served.api.get("/api/events")).json()["data"]) == 2


async def test_a_defect_that_one_event_of_a_bulk_meets_is_its_own_and_it_can_be_repeated(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [{**EVENT, "recipients": [person]} for person in (ASHA, BINA, ASHA, BINA)]

    async def post() -> httpx.Response:
        asked = {"notifications": events}
        return await served.api.post("/api/notifications/bulk", json=asked, headers={"Idempotency-Key": "bulk-2"})

    said: list[str] = []
    handler = logger.add(said.append, format="{extra[cid]} {message}", backtrace=False, diagnose=False)
    with monkeypatch.context() as patch:
        break_down(served, patch)
        first = await post()
    logger.remove(handler)
    assert first.status_code == 202, first.text
    results = first.json()["results"]
    assert [(item["status"], item["success"]) for item in results] == [(202, True), (500, False)] * 2
    assert results[1]["problem"]["code"] == "internal"
    assert "quince" not in first.text
    (line,) = [line for line in said if "2 events of 4 failed" in line]
    assert line.startswith(first.headers["x-request-id"]), "the correlation id tells the operator which request it was"
    assert line.count("RuntimeError: ") == 1, "what all events meet is told of one"
    again = await post()
    assert [item["status"] for item in again.json()["results"]] == [202] * 4
    assert [again.json()["results"][place] for place in (0, 2)] == [results[place] for place in (0, 2)]
    assert len((await served.api.get("/api/events")).json()["data"]) == 4


async def test_a_bulk_of_which_all_meets_a_defect_is_answered_as_one_and_can_be_repeated(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, headers = {"notifications": [{**EVENT, "recipients": [BINA]}]}, {"Idempotency-Key": "bulk-3"}
    with monkeypatch.context() as patch:
        break_down(served, patch)
        answer = await served.api.post("/api/notifications/bulk", json=asked, headers=headers)
    assert problem_of(answer, 500, "internal")["results"][0]["problem"]["code"] == "internal"
    assert "quince" not in answer.text
    again = await served.api.post("/api/notifications/bulk", json=asked, headers=headers)
    assert again.json()["accepted"] == 1, again.text


async def test_more_events_than_allowed_in_one_bulk_are_refused(served: Served) -> None:
    event = {"type": "a.b", "message": "m", "recipientIds": ["u"]}
    answer = await served.api.post("/api/notifications/bulk", json={"notifications": [event] * 1001})
    problem_of(answer, 422, "too_many")
