"""The main job in one process of the program: posted, reached, read, remembered."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.program import Program, client, environment, eventually, posted, running
from tests.stored import rows_of
from tocsin.channels.sandbox.sandbox import Sandbox

pytestmark = [pytest.mark.servers, pytest.mark.processes]

ASHA = {"id": "asha", "email": "asha@example.org", "phone": "+14155550101", "name": "Asha"}
BINA = {"id": "bina", "email": "bina@example.org", "phone": "+14155550102", "name": "Bina"}


@pytest.fixture
def tocsin(sandbox: Sandbox, redis_url: str, postgres_url: str, tmp_path: Path) -> Iterator[Program]:
    steps = '[{"channel":"IN_APP","after":"0s"},{"channel":"SMS","after":"400ms"},{"channel":"EMAIL","after":"800ms"}]'
    environ = environment(
        sandbox,
        redis_url,
        postgres_url,
        TOCSIN_POLICIES__QUICK=steps,
        TOCSIN_RETRY__BASE="100ms",
    )
    environ["TOCSIN_HTTP__PUBLIC_URL"] = f"http://127.0.0.1:{environ['TOCSIN_HTTP__PORT']}"
    program = Program(tmp_path, "serve", environ=environ)
    with running(program):
        yield program
        assert program.stop() == 0


@pytest.fixture
def api(tocsin: Program) -> Iterator[httpx.Client]:
    with client(tocsin.url) as made:
        yield made


def notification_of(answer: dict[str, Any], user: str) -> str:
    (found,) = [each["id"] for each in answer["notifications"] if each["recipientId"] == user]
    return str(found)


def deliveries(api: httpx.Client, notification: str) -> dict[str, dict[str, Any]]:
    answer = api.get(f"/api/notifications/{notification}/delivery-status")
    assert answer.status_code == 200, answer.text
    return {each["channel"]: each for each in answer.json()["deliveries"]}


def statuses(api: httpx.Client, notification: str) -> dict[str, str]:
    return {channel: each["status"] for channel, each in deliveries(api, notification).items()}


def as_user(api: httpx.Client, user: str) -> dict[str, str]:
    answer = api.post(f"/api/users/{user}/token")
    assert answer.status_code in {200, 201}, answer.text
    return {"Authorization": f"Bearer {answer.json()['token']}"}


def with_device(api: httpx.Client, person: dict[str, Any], token: str) -> None:
    details = {name: value for name, value in person.items() if name != "id"}
    assert api.put(f"/api/users/{person['id']}", json=details).status_code in {200, 201}
    assert api.post(f"/api/users/{person['id']}/devices", json={"token": token}).status_code in {200, 201}


def test_a_broadcast_reaches_every_channel_once(api: httpx.Client, sandbox: Sandbox) -> None:
    with_device(api, ASHA, "device-asha-1")
    answer = posted(api, title="Approved", recipientIds=["asha"], notificationPriority="HIGH")
    assert answer["success"] is True
    assert answer["durability"] == "postgres"
    note = notification_of(answer, "asha")
    expected = {"IN_APP": "DELIVERED", "PUSH": "SENT", "SMS": "DELIVERED", "EMAIL": "SENT"}
    eventually(lambda: statuses(api, note) == expected)
    received = [(entry.channel, entry.delivery) for entry in sandbox.outbox.entries()]
    ids = {each["id"] for channel, each in deliveries(api, note).items() if channel != "IN_APP"}
    assert sorted(channel for channel, _ in received) == ["EMAIL", "PUSH", "SMS"]
    assert {str(delivery) for _, delivery in received} == ids


def test_an_escalation_goes_on_while_it_is_unread(api: httpx.Client, sandbox: Sandbox) -> None:
    answer = posted(api, recipients=[BINA], deliveryStrategy="ESCALATION", policy="quick")
    note = notification_of(answer, "bina")
    eventually(lambda: statuses(api, note) == {"IN_APP": "DELIVERED", "SMS": "DELIVERED", "EMAIL": "SENT"})
    assert [entry.channel for entry in sandbox.outbox.entries()] == ["SMS", "EMAIL"]


def test_a_read_stops_an_escalation(api: httpx.Client, sandbox: Sandbox) -> None:
    answer = posted(api, recipients=[BINA], deliveryStrategy="ESCALATION", policy="quick")
    note = notification_of(answer, "bina")
    mine = as_user(api, "bina")
    eventually(lambda: statuses(api, note).get("IN_APP") == "DELIVERED")
    read = api.post(f"/api/notifications/{note}/read", headers=mine)
    assert (read.status_code, read.json()["notification"]["read"]) == (200, True)
    eventually(lambda: statuses(api, note) == {"IN_APP": "DELIVERED", "SMS": "CANCELLED", "EMAIL": "CANCELLED"})
    later = posted(api, recipients=[ASHA], deliveryStrategy="ESCALATION", policy="quick")
    eventually(lambda: statuses(api, notification_of(later, "asha")).get("EMAIL") == "SENT")
    assert {str(entry.notification) for entry in sandbox.outbox.entries()} == {notification_of(later, "asha")}


def test_the_default_escalation_is_ten_and_forty_minutes_after_the_start(api: httpx.Client) -> None:
    from datetime import datetime, timedelta

    answer = posted(api, type="community.update", recipients=[BINA])
    note = notification_of(answer, "bina")
    found = eventually(lambda: deliveries(api, note))
    times = {channel: datetime.fromisoformat(each["scheduledFor"]) for channel, each in found.items()}
    assert times["SMS"] - times["IN_APP"] == timedelta(minutes=10)
    assert times["EMAIL"] - times["IN_APP"] == timedelta(minutes=40)
    assert {found["SMS"]["status"], found["EMAIL"]["status"]} == {"SCHEDULED"}


def test_critical_goes_out_everywhere_whatever_was_asked(api: httpx.Client, sandbox: Sandbox) -> None:
    answer = posted(api, recipients=[BINA], deliveryStrategy="ESCALATION", notificationPriority="CRITICAL")
    note = notification_of(answer, "bina")
    eventually(lambda: statuses(api, note).get("SMS") == "DELIVERED" and statuses(api, note).get("EMAIL") == "SENT")


def test_a_channel_that_its_user_switched_off_stays_silent_for_critical_too(
    api: httpx.Client, sandbox: Sandbox
) -> None:
    with_device(api, ASHA, "device-asha-2")
    answer = api.put("/api/users/asha/preferences", json={"sms": False})
    assert answer.status_code == 200, answer.text
    note = notification_of(posted(api, recipientIds=["asha"], notificationPriority="CRITICAL"), "asha")
    eventually(lambda: statuses(api, note).get("EMAIL") == "SENT" and statuses(api, note).get("PUSH") == "SENT")
    assert deliveries(api, note)["SMS"]["status"] == "SUPPRESSED"
    assert deliveries(api, note)["SMS"]["reason"] == "opted_out"
    assert "SMS" not in {entry.channel for entry in sandbox.outbox.entries()}


def test_the_whole_story_is_read_from_postgres_with_redis_gone(
    api: httpx.Client, tocsin: Program, postgres_url: str
) -> None:
    answer = posted(api, title="Approved", recipients=[ASHA], notificationPriority="HIGH")
    note = notification_of(answer, "asha")
    eventually(lambda: statuses(api, note).get("SMS") == "DELIVERED" and statuses(api, note).get("EMAIL") == "SENT")
    assert tocsin.stop() == 0
    statement = "SELECT channel, status FROM deliveries WHERE notification_id = %s ORDER BY step"
    told = rows_of(postgres_url, statement, note)
    assert told == [("IN_APP", "DELIVERED"), ("PUSH", "SUPPRESSED"), ("SMS", "DELIVERED"), ("EMAIL", "SENT")]


def test_sigterm_ends_it_within_its_time_and_loses_nothing(
    api: httpx.Client, tocsin: Program, sandbox: Sandbox
) -> None:
    for number in range(20):
        posted(api, recipients=[{"id": f"u{number}", "email": f"u{number}@example.org"}], notificationPriority="HIGH")
    tocsin.signal(signal.SIGTERM)
    assert tocsin.wait(25) == 0
    tocsin.start().ready()
    eventually(lambda: len(sandbox.outbox.entries()) >= 20)
    assert len({entry.delivery for entry in sandbox.outbox.entries()}) == len(sandbox.outbox.entries()) == 20


def test_a_hundred_requests_in_the_first_second_are_all_taken(tocsin: Program, api: httpx.Client) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda n: posted(api, recipients=[{"id": f"u{n}", "name": "x"}]), range(100)))
    assert len({answer["id"] for answer in answers}) == 100
