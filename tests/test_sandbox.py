"""The sandbox: real SDKs send to it, it says what it got, and it misbehaves when it is asked to."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from starlette.datastructures import FormData

from tests.fakes.behaviour import a_message
from tocsin.channels import twilio
from tocsin.channels.contract import Outcome, OutcomeKind, Sender
from tocsin.channels.registry import build_senders, context_of
from tocsin.channels.sandbox.outbox import Outbox
from tocsin.channels.sandbox.sandbox import FROM_EMAIL, Sandbox
from tocsin.channels.sandbox.web import WebAnswer, WebRequest, WebServer
from tocsin.domain.delivery import Channel, Reason
from tocsin.domain.settings import Settings, load


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox(receipt_delay_s=0.005)
    made.start()
    yield made
    made.stop()


def settings_of(sandbox: Sandbox, **more: Any) -> Settings:
    tables = sandbox.settings_overrides().items()
    return load({}).with_values(
        {f"{name}.{key}": value for name, table in tables for key, value in table.items()} | more
    )


@pytest.fixture
async def senders(sandbox: Sandbox) -> AsyncIterator[dict[Channel, Sender]]:
    settings = settings_of(sandbox)
    made = build_senders(settings, context_of(settings, sandbox=True))
    yield made
    for sender in made.values():
        await sender.close()


async def sent(senders: dict[Channel, Sender], channel: Channel, **changes: Any) -> Outcome:
    return await senders[channel].send(a_message(channel, **changes))


async def test_every_channel_reaches_the_outbox(senders: dict[Channel, Sender], sandbox: Sandbox) -> None:
    messages = {channel: a_message(channel, attempt=2) for channel in (Channel.EMAIL, Channel.SMS, Channel.PUSH)}
    settings = settings_of(sandbox, **{"http.public_url": "http://127.0.0.1:1"})
    with_receipts = build_senders(settings, context_of(settings, sandbox=True))
    for channel, message in messages.items():
        assert (await with_receipts[channel].send(message)).kind is OutcomeKind.SENT
        assert with_receipts[channel].provider == "sandbox"
        await with_receipts[channel].close()
    entries = sandbox.outbox.entries()
    assert [entry.id for entry in entries] == [1, 2, 3]
    assert [entry.channel for entry in entries] == list(messages)
    for entry in entries:
        message = messages[entry.channel]
        assert (entry.delivery, entry.attempt) == (str(message.delivery), 2)
        assert entry.notification == str(message.notification)
        assert message.text in entry.text
        assert abs(entry.at_ms - time.time_ns() // 1_000_000) < 60_000


async def test_a_mail_is_shown_whole(senders: dict[Channel, Sender], sandbox: Sandbox) -> None:
    await sent(senders, Channel.EMAIL, title="Grüße", text="Hällo <b>")
    (entry,) = sandbox.outbox.entries(Channel.EMAIL)
    assert (entry.to, entry.subject) == ("ann.private@example.org", "Grüße")
    assert "Hällo <b>" in entry.text
    assert entry.html is not None
    assert "Hällo &lt;b&gt;" in entry.html
    assert FROM_EMAIL in entry.headers["From"]
    assert str(entry.raw).startswith("From: ")


@pytest.mark.parametrize(
    ("channel", "changes", "kind", "reason", "kept"),
    [
        (Channel.EMAIL, {"address": "bounce@example.org"}, OutcomeKind.PERMANENT, Reason.INVALID_ADDRESS, 0),
        (Channel.EMAIL, {"address": "policy@example.org"}, OutcomeKind.PERMANENT, Reason.REJECTED, 0),
        (Channel.EMAIL, {"address": "busy@example.org"}, OutcomeKind.TEMPORARY, Reason.RATE_LIMITED, 0),
        (Channel.EMAIL, {"address": "drop@example.org"}, OutcomeKind.UNKNOWN, Reason.CONNECTION_LOST, 1),
        (Channel.SMS, {"address": "+15005550001"}, OutcomeKind.PERMANENT, Reason.INVALID_ADDRESS, 0),
        (Channel.SMS, {"address": "+15005550003"}, OutcomeKind.PERMANENT, Reason.NOT_CONFIGURED, 0),
        (Channel.SMS, {"address": "+15005550004"}, OutcomeKind.PERMANENT, Reason.OPTED_OUT, 0),
        (Channel.SMS, {"address": "+15005550009"}, OutcomeKind.PERMANENT, Reason.INVALID_ADDRESS, 0),
        (Channel.SMS, {"address": "+15005550021"}, OutcomeKind.TEMPORARY, Reason.RATE_LIMITED, 0),
        (Channel.SMS, {"address": "+15005550022"}, OutcomeKind.TEMPORARY, Reason.PROVIDER_DOWN, 0),
        (Channel.SMS, {"address": "+15005550023"}, OutcomeKind.UNKNOWN, Reason.CONNECTION_LOST, 0),
        (Channel.SMS, {"address": "+15005550024"}, OutcomeKind.UNKNOWN, Reason.CONNECTION_LOST, 1),
        (Channel.PUSH, {"tokens": ("dead-1",)}, OutcomeKind.PERMANENT, Reason.INVALID_ADDRESS, 0),
        (Channel.PUSH, {"tokens": ("invalid-1",)}, OutcomeKind.PERMANENT, Reason.INVALID_ADDRESS, 0),
        (Channel.PUSH, {"tokens": ("foreign-1",)}, OutcomeKind.PERMANENT, Reason.REJECTED, 0),
        (Channel.PUSH, {"tokens": ("busy-1",)}, OutcomeKind.TEMPORARY, Reason.RATE_LIMITED, 0),
        (Channel.PUSH, {"tokens": ("down-1",)}, OutcomeKind.TEMPORARY, Reason.PROVIDER_DOWN, 0),
        (Channel.PUSH, {"tokens": ("drop-1",)}, OutcomeKind.UNKNOWN, Reason.CONNECTION_LOST, 1),
    ],
)
async def test_an_address_can_ask_for_trouble(
    senders: dict[Channel, Sender],
    sandbox: Sandbox,
    channel: Channel,
    changes: dict[str, Any],
    kind: OutcomeKind,
    reason: Reason,
    kept: int,
) -> None:
    outcome = await sent(senders, channel, **changes)
    assert (outcome.kind, outcome.reason) == (kind, reason), outcome
    assert len(sandbox.outbox.entries()) == kept


class Listener:
    """Where receipts come in; `refusals` is how many are answered with 503 first."""

    def __init__(self, refusals: int = 0) -> None:
        self.refusals = refusals
        self.heard: list[WebRequest] = []
        self.server = WebServer(self._handle)

    async def _handle(self, request: WebRequest) -> WebAnswer:
        self.heard.append(request)
        self.refusals -= 1
        return WebAnswer(503 if self.refusals >= 0 else 204, None)

    async def heard_at_least(self, count: int) -> list[str]:
        deadline = time.monotonic() + 5
        while len(self.heard) < count:
            assert time.monotonic() < deadline, [request.form() for request in self.heard]
            await asyncio.sleep(0.005)
        return [request.form()["MessageStatus"] for request in self.heard]


@pytest.mark.parametrize(
    ("number", "words"),
    [("+14155550101", ["sent", "delivered"]), ("+15005550031", ["sent", "undelivered"])],
)
async def test_receipts_follow_signed_as_twilio_signs(sandbox: Sandbox, number: str, words: list[str]) -> None:
    listener = Listener()
    url = await listener.server.start()
    settings = settings_of(sandbox, **{"http.public_url": url})
    sender = build_senders(settings, context_of(settings, sandbox=True))[Channel.SMS]
    message = a_message(Channel.SMS, address=number)
    outcome = await sender.send(message)
    assert await listener.heard_at_least(2) == words
    token = sandbox.settings_overrides()["sms.twilio"]["auth_token"]
    for request in listener.heard:
        form = FormData(list(request.form().items()))
        signature = request.headers["x-twilio-signature"]
        assert twilio.validate(token, f"{url}{request.path}", form, signature)
        assert str(message.delivery) in request.path
        assert "#" not in request.path
        assert twilio.receipt(form).provider_id == outcome.provider_id
    await sender.close()
    await listener.server.close()


async def test_a_receipt_that_is_refused_comes_again(sandbox: Sandbox) -> None:
    listener = Listener(refusals=2)
    url = await listener.server.start()
    settings = settings_of(sandbox, **{"http.public_url": url})
    sender = build_senders(settings, context_of(settings, sandbox=True))[Channel.SMS]
    await sender.send(a_message(Channel.SMS))
    assert await listener.heard_at_least(4) == ["sent", "sent", "sent", "delivered"]
    await sender.close()
    await listener.server.close()


async def test_receipts_go_to_this_machine_only(sandbox: Sandbox) -> None:
    settings = settings_of(sandbox, **{"http.public_url": "http://tell.example.invalid"})
    sender = build_senders(settings, context_of(settings, sandbox=True))[Channel.SMS]
    assert (await sender.send(a_message(Channel.SMS))).kind is OutcomeKind.SENT
    await sender.close()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"From": "+15005550006", "Body": "x"}, 21604),
        ({"To": "4155550101", "From": "+15005550006", "Body": "x"}, 21211),
        ({"To": "+0155550101", "From": "+15005550006", "Body": "x"}, 21211),
        ({"To": "+14155550101", "Body": "x"}, 21603),
        ({"To": "+14155550101", "From": "+15005550006"}, 21602),
        ({"To": "+14155550101", "From": "+15005550006", "Body": "x" * 1601}, 21617),
    ],
)
def test_twilio_refuses_what_twilio_refuses(sandbox: Sandbox, fields: dict[str, str], code: int) -> None:
    table = sandbox.settings_overrides()["sms.twilio"]
    url = f"{table['base_url']}/2010-04-01/Accounts/{table['account_sid']}/Messages.json"
    login = (table["account_sid"], table["auth_token"])
    answer = httpx.post(url, data=fields, auth=login, trust_env=False)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert httpx.post(url, data=fields, trust_env=False).json()["code"] == 20003
    assert httpx.get(f"{table['base_url']}/elsewhere", auth=login, trust_env=False).status_code == 404
    assert sandbox.outbox.entries() == []


def test_fcm_refuses_who_has_no_access_token(sandbox: Sandbox) -> None:
    url = f"{sandbox.settings_overrides()['push.fcm']['base_url']}/v1/projects/tocsin-sandbox/messages:send"
    answer = httpx.post(url, json={"message": {"token": "t"}}, trust_env=False)
    assert (answer.status_code, answer.json()["error"]["status"]) == (401, "UNAUTHENTICATED")
    token = sandbox.settings_overrides()["push.fcm"]["base_url"] + "/token"
    assert httpx.post(token, data={"assertion": "e30.e30.x"}, trust_env=False).json()["error"] == "invalid_grant"


def test_it_stops_and_leaves_nothing_behind() -> None:
    before = threading.active_count()
    sandboxes = [Sandbox(), Sandbox()]
    ports = [sandbox.start().smtp_port for sandbox in sandboxes]
    assert len(set(ports)) == 2
    for sandbox in sandboxes:
        sandbox.stop()
        sandbox.stop()
    assert threading.active_count() == before
    Sandbox().stop()


def test_without_a_start_there_is_nothing_to_point_at() -> None:
    sandbox = Sandbox()
    with pytest.raises(RuntimeError):
        sandbox.settings_overrides()
    sandbox.stop()


def test_the_outbox_keeps_the_newest() -> None:
    outbox = Outbox(kept=3)
    for number in range(5):
        outbox.add(Channel.SMS if number % 2 else Channel.EMAIL, f"to-{number}")
    assert [entry.to for entry in outbox.entries()] == ["to-2", "to-3", "to-4"]
    assert [entry.to for entry in outbox.entries(Channel.SMS)] == ["to-3"]
    assert outbox.received == 5
    outbox.clear()
    assert outbox.entries() == []


def test_the_outbox_is_waited_for() -> None:
    outbox = Outbox()
    adding = threading.Thread(target=lambda: [outbox.add(Channel.SMS, str(number)) for number in range(3)])
    adding.start()
    assert [entry.to for entry in outbox.wait_for(2, where=lambda entry: entry.to != "0")] == ["1", "2"]
    adding.join()
    with pytest.raises(TimeoutError, match="3 of 4"):
        outbox.wait_for(4, limit_s=0.01)
