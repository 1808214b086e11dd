"""SMS through Twilio: what its codes mean, where its receipts go, and how they are read."""

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.datastructures import FormData

from tests.fakes.behaviour import a_message
from tests.fakes.twilio import TwilioFake
from tocsin.channels import twilio
from tocsin.channels.contract import BuildContext, Outcome, OutcomeKind, Sender
from tocsin.channels.sandbox.signing import signature_of
from tocsin.channels.sandbox.web import WebAnswer, WebRequest
from tocsin.domain.delivery import Channel, Reason, Status
from tocsin.domain.errors import SettingError
from tocsin.domain.plan import Priority
from tocsin.domain.settings import load

PERMANENT, TEMPORARY, UNKNOWN, SENT = (
    OutcomeKind.PERMANENT,
    OutcomeKind.TEMPORARY,
    OutcomeKind.UNKNOWN,
    OutcomeKind.SENT,
)
PUBLIC = "https://tell.example.org"
TOKEN = "12345678901234567890123456789012"

Build = Callable[..., Sender]


@pytest.fixture
async def fake() -> AsyncIterator[TwilioFake]:
    made = TwilioFake()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def build(fake: TwilioFake) -> AsyncIterator[Build]:
    made: list[Sender] = []

    def build_one(
        *, public_url: str | None = PUBLIC, most: int = 1, emoji: Any = None, timeout: str = "2s", **table: Any
    ) -> Sender:
        table = {**fake.table(), "timeout": timeout, **table}
        settings = load({}).with_values({f"sms.twilio.{name}": value for name, value in table.items()})
        context = BuildContext(False, public_url, "Tocsin", None, emoji or {}, most)
        made.append(twilio.PROVIDER.build(settings.provider_settings("sms.twilio", twilio.TwilioSettings), context))
        return made[-1]

    yield build_one
    for sender in made:
        await sender.close()


async def sent(sender: Sender, **changes: Any) -> Outcome:
    return await sender.send(a_message(Channel.SMS, **changes))


def refusal(status: int, code: int | None, **headers: str) -> WebAnswer:
    body = {"message": "no", "more_info": "", "status": status} | ({"code": code} if code else {})
    return WebAnswer(status, body, headers)


@pytest.mark.parametrize(
    ("status", "code", "kind", "reason"),
    [
        (400, 21610, PERMANENT, Reason.OPTED_OUT),
        *[(400, code, PERMANENT, Reason.INVALID_ADDRESS) for code in (21211, 21614, 21635, 30005, 30006)],
        *[(400, code, PERMANENT, Reason.NOT_CONFIGURED) for code in (21408, 21608, 30034)],
        (401, 20003, PERMANENT, Reason.NOT_CONFIGURED),
        *[(400, code, PERMANENT, Reason.REJECTED) for code in (30004, 30007, 30450, 21617, 99999)],
        (429, 20429, TEMPORARY, Reason.RATE_LIMITED),
        (503, 20503, TEMPORARY, Reason.PROVIDER_DOWN),
        (500, 20500, TEMPORARY, Reason.PROVIDER_DOWN),
        (400, 30001, TEMPORARY, Reason.RATE_LIMITED),
        (400, 30003, TEMPORARY, Reason.UNDELIVERED),
        (400, 30008, TEMPORARY, Reason.UNDELIVERED),
    ],
)
async def test_what_each_code_means(
    fake: TwilioFake, build: Build, status: int, code: int, kind: OutcomeKind, reason: Reason
) -> None:
    fake.answer = refusal(status, code)
    outcome = await sent(build())
    assert (outcome.kind, outcome.reason, outcome.code) == (kind, reason, str(code))
    assert (outcome.message, fake.asked) == ("no", 1)


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (WebAnswer(400, "text"), PERMANENT, Reason.REJECTED),
        (WebAnswer(403, {}), PERMANENT, Reason.NOT_CONFIGURED),
        (WebAnswer(404, None), PERMANENT, Reason.REJECTED),
        (WebAnswer(408, {}), TEMPORARY, Reason.TIMEOUT),
        (WebAnswer(429, {}), TEMPORARY, Reason.RATE_LIMITED),
        (WebAnswer(500, []), TEMPORARY, Reason.PROVIDER_DOWN),
        (WebAnswer(503, {}), TEMPORARY, Reason.PROVIDER_DOWN),
        (WebAnswer(502, {}), UNKNOWN, Reason.CONNECTION_LOST),
        (WebAnswer(504, {}), UNKNOWN, Reason.TIMEOUT),
        (WebAnswer(302, {}, {"Location": "http://127.0.0.1:1/"}), PERMANENT, Reason.REJECTED),
        (WebAnswer(200, {}), UNKNOWN, Reason.CONNECTION_LOST),
        (WebAnswer(201, {"sid": None}), UNKNOWN, Reason.CONNECTION_LOST),
        (WebAnswer(201, [1, 2]), UNKNOWN, Reason.CONNECTION_LOST),
        (WebAnswer(201, {"sid": "SM1", "date_created": 7}), UNKNOWN, Reason.CONNECTION_LOST),
        (
            WebAnswer(400, {"type": "t", "title": "bad", "status": 400, "code": 21610}),
            PERMANENT,
            Reason.OPTED_OUT,
        ),
    ],
)
async def test_an_answer_without_a_code_is_judged_by_its_status(
    fake: TwilioFake, build: Build, answer: WebAnswer, kind: OutcomeKind, reason: Reason
) -> None:
    fake.answer = answer
    outcome = await sent(build())
    assert (outcome.kind, outcome.reason) == (kind, reason), outcome
    assert fake.asked == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("5", 5.0),
        ("0", 0.0),
        ("2.5", 2.5),
        ("-3", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Fri, 31 Dec 2199 23:59:59 GMT", 86_400.0),
        ("99999999", 86_400.0),
        ("inf", None),
        ("nan", None),
        ("soon", None),
        ("", None),
    ],
)
async def test_retry_after_is_understood(fake: TwilioFake, build: Build, header: str, seconds: float | None) -> None:
    fake.answer = refusal(429, 20429, **{"retry-after": header})
    assert (await sent(build())).retry_after_s == seconds


async def test_an_answer_that_comes_in_drops_is_not_waited_for(build: Build) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            for byte in b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nX-Long: " + b"x" * 10_000:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.01)
        except OSError:
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    sender = build(base_url=f"http://127.0.0.1:{port}", timeout="400ms")
    began = time.monotonic()
    outcome = await sent(sender)
    assert time.monotonic() - began < 0.8
    assert (outcome.kind, outcome.reason) == (UNKNOWN, Reason.TIMEOUT)
    server.close()


async def test_a_login_that_is_answered_with_nonsense_is_told(
    fake: TwilioFake, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nonsense(_request: WebRequest) -> WebAnswer:
        return WebAnswer(200, ["what?"])

    monkeypatch.setattr(fake.server, "handle", nonsense)
    with pytest.raises(SettingError, match=r"sms\.twilio"):
        await build().check()


async def test_the_receipt_comes_to_the_attempt_it_speaks_of(fake: TwilioFake, build: Build) -> None:
    message = a_message(Channel.SMS, step=3, attempt=2)
    assert (await build().send(message)).kind is SENT
    url = urlsplit(fake.taken[0]["raw"]["StatusCallback"])
    assert f"{url.scheme}://{url.netloc}{url.path}" == f"{PUBLIC}/callbacks/twilio"
    assert parse_qs(url.query) == {
        "delivery": [str(message.delivery)],
        "notification": [str(message.notification)],
        "step": ["3"],
        "attempt": ["2"],
    }
    assert url.fragment == "rc=3&rp=all"


async def test_without_a_public_address_no_receipt_is_asked_for(fake: TwilioFake, build: Build) -> None:
    assert (await sent(build(public_url=None))).kind is SENT
    assert "StatusCallback" not in fake.taken[0]["raw"]


async def test_the_real_twilio_is_never_told_to_call_this_machine() -> None:
    from tocsin.channels.senders.twilio import _reachable

    assert _reachable("http://127.0.0.1:8000", "https://api.twilio.com") is None
    assert _reachable("http://127.0.0.1:8000", "http://127.0.0.1:9") == "http://127.0.0.1:8000"
    assert _reachable(f"{PUBLIC}/", "https://api.twilio.com") == PUBLIC


async def test_text_over_160_goes_out_as_one_segment(fake: TwilioFake, build: Build) -> None:
    outcome = await sent(build(), text="a" * 400)
    assert (outcome.segments, fake.taken[0]["text"]) == (1, "a" * 157 + "...")


async def test_more_segments_are_taken_where_they_are_allowed(fake: TwilioFake, build: Build) -> None:
    outcome = await sent(build(most=3), text="a" * 400)
    assert (outcome.segments, fake.taken[0]["text"]) == (3, "a" * 400)


async def test_a_priority_has_its_emoji(fake: TwilioFake, build: Build) -> None:
    sender = build(emoji={Priority.CRITICAL: "🚨 "})
    outcome = await sent(sender, text="b" * 100, priority=Priority.CRITICAL)
    assert fake.taken[0]["text"] == "🚨 " + "b" * 66 + "…"
    assert outcome.segments == 1
    await sent(sender, text="b" * 100, priority=Priority.LOW)
    assert fake.taken[1]["text"] == "b" * 100


@pytest.mark.parametrize("number", ["4155550101", "+1415555", "nobody", "+1 415 555 0101 ext. 5", "", "+"])
async def test_what_is_no_number_reaches_no_provider(fake: TwilioFake, build: Build, number: str) -> None:
    outcome = await sent(build(), address=number)
    assert (outcome.kind, outcome.reason, fake.asked) == (PERMANENT, Reason.INVALID_ADDRESS, 0)


async def test_a_number_is_made_e164(fake: TwilioFake, build: Build) -> None:
    await sent(build(), address="+1 (415) 555-0101")
    assert fake.taken[0]["raw"]["To"] == "+14155550101"


async def test_the_environment_neither_moves_nor_proxies_a_server_on_this_machine(
    fake: TwilioFake, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("TWILIO_REGION", "ie1")
    monkeypatch.setenv("TWILIO_EDGE", "dublin")
    assert (await sent(build())).kind is SENT


def test_half_of_the_credentials_are_refused_with_the_mend() -> None:
    context = BuildContext(False, None, "Tocsin", None, {})
    for missing in ("auth_token", "from_number"):
        given = {"account_sid": "AC1", "auth_token": TOKEN, "from_number": "+15005550006"}
        del given[missing]
        with pytest.raises(SettingError, match=rf"sms\.twilio\.{missing}"):
            twilio.PROVIDER.build(twilio.TwilioSettings.model_validate(given), context)


def signed(url: str, fields: dict[str, str]) -> str:
    said = url + "".join(f"{name}{fields[name]}" for name in sorted(fields))
    return base64.b64encode(hmac.new(TOKEN.encode(), said.encode(), hashlib.sha1).digest()).decode()


def test_a_signature_is_checked_over_url_and_every_field() -> None:
    url = f"{PUBLIC}/callbacks/twilio?delivery=1&step=2"
    fields = {"MessageSid": "SM1", "MessageStatus": "sent", "Blank": ""}
    signature = signed(url, fields)
    assert signature == signature_of(TOKEN, url, fields)
    form = FormData(list(fields.items()))
    assert twilio.validate(TOKEN, url, form, signature)
    assert not twilio.validate(TOKEN, url + "3", form, signature)
    assert not twilio.validate("another token", url, form, signature)
    assert not twilio.validate(TOKEN, url, FormData([*fields.items(), ("More", "x")]), signature)
    assert not twilio.validate(TOKEN, url, form, "")


def test_a_field_that_is_repeated_is_signed_with_all_its_values() -> None:
    form = FormData([("Media", "b"), ("Media", "a")])
    assert twilio.validate(TOKEN, PUBLIC, form, signed(PUBLIC, {"Media": "aMediab"}))


@pytest.mark.parametrize(
    ("word", "status"),
    [
        *[(word, Status.SENT) for word in ("accepted", "scheduled", "queued", "sending", "sent")],
        ("partially_delivered", Status.SENT),
        ("delivered", Status.DELIVERED),
        ("read", Status.DELIVERED),
        ("undelivered", Status.BOUNCED),
        ("failed", Status.BOUNCED),
        ("canceled", Status.BOUNCED),
        ("receiving", None),
        ("", None),
    ],
)
def test_what_each_word_of_a_receipt_means(word: str, status: Status | None) -> None:
    read = twilio.receipt({"MessageStatus": word, "MessageSid": "SM1"})
    assert (read.status, read.word, read.provider_id) == (status, word, "SM1")


@pytest.mark.parametrize(
    ("word", "code", "reason"),
    [
        ("undelivered", "30005", Reason.INVALID_ADDRESS),
        ("undelivered", "30007", Reason.REJECTED),
        ("undelivered", "30003", Reason.UNDELIVERED),
        ("failed", "21610", Reason.OPTED_OUT),
        ("failed", "", Reason.UNDELIVERED),
        ("failed", "x²", Reason.UNDELIVERED),
        ("canceled", "", Reason.CANCELLED),
        ("delivered", "", None),
    ],
)
def test_a_receipt_says_why_it_bounced(word: str, code: str, reason: Reason | None) -> None:
    assert twilio.receipt({"MessageStatus": word, "ErrorCode": code}).reason is reason


def test_a_receipt_shows_no_number() -> None:
    read = twilio.receipt(
        {
            "MessageStatus": "undelivered",
            "MessageSid": "SM1",
            "To": "+14155550101",
            "From": "+15005550006",
            "ErrorCode": "30005",
            "ErrorMessage": "Unknown destination +14155550101 from 15005550006",
            "NumSegments": "2",
            "Price": "-0.0079",
        }
    )
    assert read.message == "Unknown destination [hidden] from [hidden]"
    assert (read.code, read.segments, read.price) == ("30005", 2, "-0.0079")


def test_an_empty_receipt_is_read_too() -> None:
    read = twilio.receipt({})
    assert (read.status, read.word, read.provider_id, read.code, read.segments) == (None, "", "", None, None)
