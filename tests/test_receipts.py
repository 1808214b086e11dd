"""Receipts from Twilio in any order, twice, from many processes: one journey and the right end, each for its own."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import pytest

from tests.program import Program, client, environment, eventually, posted, running
from tests.stored import rows_of
from tocsin.channels.sandbox.sandbox import Sandbox
from tocsin.domain import ids

pytestmark = [pytest.mark.servers, pytest.mark.processes]

PUBLIC = "https://tell.example.org"
DELIVERIES = 125
WORDS = ("queued", "sending", "sent", "delivered")

Callback = tuple[str, dict[str, str]]


@pytest.fixture
def programs(sandbox: Sandbox, redis_url: str, postgres_url: str, tmp_path: Path) -> Iterator[list[Program]]:
    shared = {"TOCSIN_HTTP__PUBLIC_URL": PUBLIC}
    first, second, actors = (environment(sandbox, redis_url, postgres_url, **shared) for _ in range(3))
    for environ in (first, second, actors):
        environ["TWILIO_AUTH_TOKEN"] = environ.pop("TOCSIN_SMS__TWILIO__AUTH_TOKEN")
    made = [
        Program(tmp_path, "http", environ=first),
        Program(tmp_path, "http", environ=second),
        Program(tmp_path, "actors", environ=actors),
    ]
    with running(*made):
        yield made


def callback(sms: dict[str, Any], word: str, sid: str) -> Callback:
    query = {"delivery": sms["id"], "notification": sms["notification"], "step": sms["step"], "attempt": 1}
    return f"/callbacks/twilio?{urlencode(query)}", {"MessageSid": sid, "MessageStatus": word, "AccountSid": "AC1"}


def deliver(programs: list[Program], token: str, *parts: list[Callback]) -> list[int]:
    """The status codes of callbacks, each part posted by a process of its own, all at once."""
    script = str(Path(__file__).with_name("telling.py"))
    told = {"urls": [program.url for program in programs], "public": PUBLIC, "token": token}
    tellers = [
        subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in parts
    ]
    for teller, part in zip(tellers, parts, strict=True):
        assert teller.stdin is not None
        teller.stdin.write(json.dumps({**told, "callbacks": part}))
        teller.stdin.close()
    codes: list[int] = []
    for teller in tellers:
        assert teller.stdout is not None
        with teller.stdout as answer:
            codes += json.load(answer)
        assert teller.wait(60) == 0
    return codes


def sms_of(answer: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for each in answer["notifications"]:
        delivery = ids.delivery_id(UUID(each["id"]), 1, "SMS")
        found.append({"id": str(delivery), "notification": each["id"], "step": 1, "user": each["recipientId"]})
    return found


def rows(postgres_url: str) -> dict[str, tuple[str, str, list[str]]]:
    told = "SELECT id::text, status, provider_id, ARRAY(SELECT jsonb_object_keys(history)) FROM deliveries"
    return {identifier: (status, sid, sorted(keys)) for identifier, status, sid, keys in rows_of(postgres_url, told)}


def test_a_thousand_shuffled_and_doubled_receipts_from_four_processes_end_right(
    programs: list[Program], sandbox: Sandbox, postgres_url: str
) -> None:
    token = programs[0].environ["TWILIO_AUTH_TOKEN"]
    people = [{"id": f"u{n}", "phone": f"+1415555{n:04d}"} for n in range(DELIVERIES)]
    with client(programs[0].url) as api:
        answers = [
            posted(api, recipients=people[first : first + 100], channels=["SMS"], notificationPriority="HIGH")
            for first in (0, 100)
        ]
    expected = [sms for answer in answers for sms in sms_of(answer)]
    eventually(lambda: len(sandbox.outbox.entries()) == DELIVERIES)
    eventually(lambda: {status for status, _, _ in rows(postgres_url).values()} == {"SENT"})
    sids = {identifier: sid for identifier, (_, sid, _) in rows(postgres_url).items()}
    callbacks = [callback(sms, word, sids[sms["id"]]) for sms in expected for word in WORDS] * 2
    random.Random(7).shuffle(callbacks)
    assert len(callbacks) == 1_000
    codes = deliver(programs[:2], token, *(callbacks[n::4] for n in range(4)))
    assert set(codes) == {204}
    eventually(lambda: {status for status, _, _ in rows(postgres_url).values()} == {"DELIVERED"})
    (journey,) = {tuple(keys) for _, _, keys in rows(postgres_url).values()}
    assert len(journey) == len(set(journey))
    assert {key.split(":")[1] for key in journey} == {"QUEUED", "SENDING", "SENT", "DELIVERED"}


def test_three_messages_of_one_minute_get_each_its_own_receipt(
    programs: list[Program], sandbox: Sandbox, postgres_url: str
) -> None:
    """Three matches begin at the same minute for the same person; guessing by number and time would mix them up."""
    token = programs[0].environ["TWILIO_AUTH_TOKEN"]
    with client(programs[0].url) as api:
        matches = [
            posted(
                api,
                type="match.start",
                message=f"Match {n} begins",
                recipients=[{"id": "fan", "phone": "+14155550100"}],
                channels=["SMS"],
                notificationPriority="HIGH",
            )
            for n in range(3)
        ]
    (first,), (second,), (third,) = (sms_of(match) for match in matches)
    eventually(lambda: [status for status, _, _ in rows(postgres_url).values()] == ["SENT"] * 3)
    sids = {identifier: sid for identifier, (_, sid, _) in rows(postgres_url).items()}
    ends = {third["id"]: "delivered", first["id"]: "undelivered", second["id"]: "sent"}
    told = [callback(sms, ends[sms["id"]], sids[sms["id"]]) for sms in (third, first, second)]
    assert deliver(programs[:1], token, told) == [204] * 3
    expected = {third["id"]: "DELIVERED", first["id"]: "BOUNCED", second["id"]: "SENT"}
    eventually(lambda: {identifier: status for identifier, (status, _, _) in rows(postgres_url).items()} == expected)


def test_a_receipt_that_twilio_did_not_sign_changes_nothing(
    programs: list[Program], sandbox: Sandbox, postgres_url: str
) -> None:
    with client(programs[0].url) as api:
        answer = posted(api, recipients=[{"id": "u", "phone": "+14155550100"}], channels=["SMS"])
    (sms,) = sms_of(answer)
    assert deliver(programs[:1], "another token", [callback(sms, "delivered", "SM1")]) == [403]
    assert rows_of(postgres_url, "SELECT count(*) FROM callbacks") == [(0,)]
