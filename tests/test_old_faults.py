"""Faults that such systems had, each with the test that keeps it out. Those that need more than this file have theirs
where the matter is tested, and are named here.

- two actors on one job: test_flights `test_two_actors_do_not_claim_one_delivery`
- three matches of one minute: test_receipts `test_three_messages_of_one_minute_get_each_its_own_receipt`
- success without an SDK: test_registry `test_without_its_sdk_a_channel_is_not_configured`
- an id published that was not updated: test_http_inbox `test_read_multiple_names_only_what_changed`
- a token without `Bearer `: test_http_access `test_a_token_without_bearer_is_told_to_write_it`
- text over 160: test_twilio `test_text_over_160_goes_out_as_one_segment`
- HTML in a message: test_http_posting `test_html_in_a_message_stays_text`, test_letter
- SIGTERM ignored: test_story `test_sigterm_ends_it_within_its_time_and_loses_nothing`
- a hundred requests in the first second: test_story `test_a_hundred_requests_in_the_first_second_are_all_taken`
"""

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.program import Program, client, environment, eventually, posted, running
from tests.scenes import an_event
from tocsin.channels.sandbox.sandbox import Sandbox
from tocsin.domain import ids
from tocsin.domain.delivery import Channel, Status, key, shown_attempt
from tocsin.domain.settings import load
from tocsin.storage import persist, queries
from tocsin.storage.database import Refused
from tocsin.storage.postgres import Postgres

NOW_MS = 1_795_000_000_000


def test_delivered_is_not_sent_and_sent_is_not_delivered() -> None:
    """Counting what was delivered as sent, or the other way round, made rates above a hundred percent."""
    sent = {key(1, Status.SENT): {"at": 1}}
    assert shown_attempt(sent) == (1, Status.SENT)
    assert shown_attempt(sent | {key(1, Status.DELIVERED, "delivered"): {"at": 2}}) == (1, Status.DELIVERED)
    assert shown_attempt({key(1, Status.DELIVERED, "delivered"): {"at": 2}}) == (1, Status.DELIVERED)


@pytest.fixture
async def postgres(postgres_url: str) -> Any:
    made = Postgres(load({}).with_values({"postgres.url": postgres_url}).postgres)
    yield made
    await made.close()


@pytest.mark.servers
async def test_a_callback_is_applied_whole_or_not_at_all(postgres: Postgres) -> None:
    """A callback whose receipt could not be stored used to be marked as handled."""
    note = str(ids.notification_id(an_event().id, "u1"))
    callback = {"f": "callback", "provider": "twilio", "at": NOW_MS, "id": "SM1:sent", "raw": {}, "cid": "c"}
    broken = {"f": "moved", "d": [[note, 1, "SMS", 1, "NO_SUCH_STATUS", "sent", NOW_MS, {}]]}
    whole = {"f": "moved", "d": [[note, 1, "SMS", 1, "SENT", "sent", NOW_MS, {}]]}
    with pytest.raises(Refused):
        await postgres.call(persist.store, [("1-0", [callback, broken])])
    assert await postgres.call(queries.delivery, ids.delivery_id(UUID(note), 1, Channel.SMS)) is None
    await postgres.call(persist.store, [("1-1", [callback, whole])])
    found = await postgres.call(queries.delivery, ids.delivery_id(UUID(note), 1, Channel.SMS))
    assert found is not None
    assert found.status == Status.SENT


@pytest.mark.servers
@pytest.mark.processes
def test_nothing_is_sent_before_the_provider_said_so(redis_url: str, postgres_url: str, tmp_path: Path) -> None:
    """A provider that does not answer leaves a delivery SENDING and then UNCERTAIN, never SENT."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        environ = environment(
            None,
            redis_url,
            postgres_url,
            SMTP_HOST="127.0.0.1",
            SMTP_PORT=str(silent.getsockname()[1]),
            SENDER_EMAIL="tocsin@example.org",
            TOCSIN_EMAIL__SMTP__SECURITY="none",
            TOCSIN_EMAIL__SMTP__TIMEOUT="2s",
            TOCSIN_RETRY__ATTEMPTS="1",
        )
        program = Program(tmp_path, "serve", environ=environ)
        with running(program), client(program.url) as api:
            answer = posted(api, recipients=[{"id": "u1", "email": "u1@example.org"}], channels=["EMAIL"])
            (note,) = [each["id"] for each in answer["notifications"]]
            seen: set[str] = set()

            def ended() -> bool:
                told = api.get(f"/api/notifications/{note}/delivery-status").json()["deliveries"]
                seen.update(each["status"] for each in told)
                return bool({"DEAD", "UNCERTAIN", "FAILED"} & seen)

            eventually(ended)
            assert seen <= {"QUEUED", "SENDING", "DEAD", "UNCERTAIN"}
            journey = api.get(f"/api/notifications/{note}/journey").text
            assert "SENT" not in json.loads(journey.replace("SENDING", ""))


@pytest.mark.servers
@pytest.mark.processes
def test_a_channel_without_credentials_fails_and_says_why(redis_url: str, postgres_url: str, tmp_path: Path) -> None:
    """Channels without an SDK or credentials used to report success."""
    program = Program(tmp_path, "serve", environ=environment(None, redis_url, postgres_url))
    with running(program), client(program.url) as api:
        person = {"id": "u1", "email": "u1@example.org", "phone": "+14155550123"}
        answer = posted(api, recipients=[person], notificationPriority="HIGH")
        (note,) = [each["id"] for each in answer["notifications"]]

        def told() -> dict[str, tuple[str, str | None]]:
            found = api.get(f"/api/notifications/{note}/delivery-status").json()["deliveries"]
            return {each["channel"]: (each["status"], each["reason"]) for each in found}

        expected = {
            "IN_APP": ("DELIVERED", None),
            "PUSH": ("SUPPRESSED", "no_address"),
            "SMS": ("FAILED", "not_configured"),
            "EMAIL": ("FAILED", "not_configured"),
        }
        eventually(lambda: told() == expected)


@pytest.mark.servers
@pytest.mark.processes
def test_what_cannot_be_tracked_yet_is_refused_and_not_ignored(
    redis_url: str, postgres_url: str, tmp_path: Path
) -> None:
    """Opens that never reached their delivery were asked for by a field that was accepted and forgotten."""
    sandbox = Sandbox()
    sandbox.start()
    try:
        program = Program(tmp_path, "serve", environ=environment(sandbox, redis_url, postgres_url))
        with running(program), client(program.url) as api:
            event = {"type": "a.b", "message": "x", "recipients": [{"id": "u1", "email": "u1@example.org"}]}
            for field, value in {"tracking": {"opens": True}, "template": "t", "sendAt": None}.items():
                answer = api.post("/api/notifications", json={**event, field: value})
                assert (answer.status_code, answer.json()["code"]) == (422, "not_available"), field
            assert api.get("/t/o/1").status_code == 404
            document = api.get("/openapi.json").text
            assert "/t/o/" not in document
            assert '"template"' not in document
    finally:
        sandbox.stop()
