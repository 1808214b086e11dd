"""Push through FCM: many devices, dead ones found, hidden retries off, and access tokens fetched apart."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import firebase_admin
import pytest

from tests.fakes.behaviour import a_message
from tests.fakes.fcm import FcmFake
from tocsin.channels import fcm
from tocsin.channels.contract import BuildContext, Outcome, OutcomeKind, Sender
from tocsin.channels.sandbox.web import HangUp, WebAnswer, WebRequest
from tocsin.domain.delivery import Channel, Reason
from tocsin.domain.errors import SettingError
from tocsin.domain.plan import Priority
from tocsin.domain.settings import load

PERMANENT, TEMPORARY, UNKNOWN, SENT = (
    OutcomeKind.PERMANENT,
    OutcomeKind.TEMPORARY,
    OutcomeKind.UNKNOWN,
    OutcomeKind.SENT,
)
FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"

Build = Callable[..., Sender]


@pytest.fixture
async def fake() -> AsyncIterator[FcmFake]:
    made = FcmFake()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def build(fake: FcmFake) -> AsyncIterator[Build]:
    made: list[Sender] = []

    def build_one(timeout: str = "2s", **table: Any) -> Sender:
        table = {**fake.table(), "timeout": timeout, **table}
        settings = load({}).with_values({f"push.fcm.{name}": value for name, value in table.items()})
        context = BuildContext(False, "https://tell.example.org", "Tocsin", None, {})
        made.append(fcm.PROVIDER.build(settings.provider_settings("push.fcm", fcm.FcmSettings), context))
        return made[-1]

    yield build_one
    for sender in made:
        await sender.close()


@pytest.fixture
def sender(build: Build) -> Sender:
    return build()


async def sent(sender: Sender, *tokens: str, **changes: Any) -> Outcome:
    return await sender.send(a_message(Channel.PUSH, tokens=tokens or ("device",), **changes))


def refusal(status: int, word: str, code: str | None = None, said: str = "no", **headers: str) -> WebAnswer:
    details = [{"@type": FCM_ERROR, "errorCode": code}] if code else []
    body = {"error": {"code": status, "message": said, "status": word, "details": details}}
    return WebAnswer(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize(
    ("answer", "kind", "reason", "dead"),
    [
        (refusal(404, "NOT_FOUND", "UNREGISTERED"), PERMANENT, Reason.INVALID_ADDRESS, True),
        (refusal(404, "NOT_FOUND"), PERMANENT, Reason.REJECTED, False),
        (
            refusal(400, "INVALID_ARGUMENT", said="The registration token is not a valid FCM registration token"),
            PERMANENT,
            Reason.INVALID_ADDRESS,
            True,
        ),
        (
            refusal(400, "INVALID_ARGUMENT", said="Invalid value at 'message.token'"),
            PERMANENT,
            Reason.INVALID_ADDRESS,
            True,
        ),
        (refusal(400, "INVALID_ARGUMENT", said="Message too big"), PERMANENT, Reason.REJECTED, False),
        (refusal(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"), PERMANENT, Reason.REJECTED, False),
        (refusal(403, "PERMISSION_DENIED"), PERMANENT, Reason.NOT_CONFIGURED, False),
        (refusal(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"), PERMANENT, Reason.NOT_CONFIGURED, False),
        (refusal(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"), TEMPORARY, Reason.RATE_LIMITED, False),
        (refusal(503, "UNAVAILABLE", "UNAVAILABLE"), TEMPORARY, Reason.PROVIDER_DOWN, False),
        (refusal(500, "INTERNAL", "INTERNAL"), TEMPORARY, Reason.PROVIDER_DOWN, False),
        (WebAnswer(502, {}), UNKNOWN, Reason.CONNECTION_LOST, False),
        (WebAnswer(504, {}), UNKNOWN, Reason.TIMEOUT, False),
        (WebAnswer(500, {"error": "text"}), TEMPORARY, Reason.PROVIDER_DOWN, False),
        (WebAnswer(400, []), PERMANENT, Reason.REJECTED, False),
        (WebAnswer(200, {"no": "name"}), UNKNOWN, Reason.CONNECTION_LOST, False),
        (WebAnswer(200, None), UNKNOWN, Reason.CONNECTION_LOST, False),
    ],
)
async def test_what_each_answer_means(
    sender: Sender, fake: FcmFake, answer: WebAnswer, kind: OutcomeKind, reason: Reason, dead: bool
) -> None:
    fake.answer = answer
    outcome = await sent(sender, "device")
    assert (outcome.kind, outcome.reason) == (kind, reason), outcome
    assert outcome.dead_tokens == (("device",) if dead else ())


async def test_a_failure_is_posted_once(sender: Sender, fake: FcmFake) -> None:
    for answer in (refusal(503, "UNAVAILABLE"), refusal(500, "INTERNAL"), refusal(429, "RESOURCE_EXHAUSTED")):
        fake.answer, fake.asked = answer, 0
        await sent(sender)
        assert fake.asked == 1


async def test_quota_is_waited_for_a_minute_at_least(sender: Sender, fake: FcmFake) -> None:
    fake.answer = refusal(429, "RESOURCE_EXHAUSTED", Retry_After="5")
    assert (await sent(sender)).retry_after_s == 60.0
    fake.answer = refusal(429, "RESOURCE_EXHAUSTED", Retry_After="90")
    assert (await sent(sender)).retry_after_s == 90.0
    fake.answer = refusal(503, "UNAVAILABLE", Retry_After="5")
    assert (await sent(sender)).retry_after_s == 5.0


async def test_every_device_gets_it_and_the_dead_are_named(sender: Sender, fake: FcmFake) -> None:
    outcome = await sent(sender, "one", "dead-a", "two", "invalid-b", "busy-c", "one")
    assert (outcome.kind, outcome.message) == (SENT, "2 of 5 devices")
    assert set(outcome.dead_tokens) == {"dead-a", "invalid-b"}
    assert sorted(entry.to for entry in fake.outbox.entries()) == ["one", "two"]


@pytest.mark.parametrize(
    ("tokens", "kind", "reason"),
    [
        (("dead-1", "dead-2"), PERMANENT, Reason.INVALID_ADDRESS),
        (("dead-1", "foreign-2"), PERMANENT, Reason.REJECTED),
        (("dead-1", "down-2"), TEMPORARY, Reason.PROVIDER_DOWN),
        (("busy-1", "drop-2"), UNKNOWN, Reason.CONNECTION_LOST),
        (("drop-1", "ok"), SENT, None),
    ],
)
async def test_without_a_taker_the_least_certain_answer_counts(
    sender: Sender, tokens: tuple[str, ...], kind: OutcomeKind, reason: Reason | None
) -> None:
    outcome = await sent(sender, *tokens)
    assert (outcome.kind, outcome.reason) == (kind, reason)
    assert set(outcome.dead_tokens) == {token for token in tokens if token.startswith("dead-")}


async def test_more_than_five_hundred_devices_are_all_reached(build: Build, fake: FcmFake) -> None:
    sender = build(timeout="30s")
    outcome = await sent(sender, *(f"device-{number}" for number in range(510)))
    assert (outcome.kind, outcome.message) == (SENT, "510 of 510 devices")
    assert len({entry.to for entry in fake.outbox.entries()}) == 510
    assert fake.most_at_once <= 16


async def test_what_was_not_begun_in_time_is_known_not_to_have_been_sent(build: Build, fake: FcmFake) -> None:
    fake.delay_s = 0.4
    outcome = await sent(build(timeout="2s"), *(f"device-{number}" for number in range(200)))
    assert outcome.kind is SENT
    assert 0 < len(fake.taken) < 100


async def test_a_push_carries_what_an_app_needs(sender: Sender, fake: FcmFake) -> None:
    message = a_message(
        Channel.PUSH, tokens=("device",), attempt=2, text="x" * 400, metadata={"actionUrl": "/events/9", "from": "me"}
    )
    await sender.send(message)
    raw = fake.taken[0]["raw"]
    assert raw["data"] == {
        "delivery": str(message.delivery),
        "notification": str(message.notification),
        "event": str(message.event),
        "attempt": "2",
        "type": "event.approval",
        "actionUrl": "https://tell.example.org/events/9",
    }
    assert raw["notification"] == {"title": "Approved", "body": "x" * 149 + "…"}
    assert raw["android"]["notification"]["tag"] == str(message.delivery)
    assert raw["apns"]["headers"]["apns-collapse-id"] == str(message.delivery)


@pytest.mark.parametrize(
    ("priority", "android", "apple"),
    [
        (Priority.LOW, "normal", "5"),
        (Priority.MEDIUM, "normal", "5"),
        (Priority.HIGH, "high", "10"),
        (Priority.CRITICAL, "high", "10"),
    ],
)
async def test_what_matters_wakes_the_device(
    sender: Sender, fake: FcmFake, priority: Priority, android: str, apple: str
) -> None:
    await sent(sender, priority=priority)
    raw = fake.taken[0]["raw"]
    assert (raw["android"]["priority"], raw["apns"]["headers"]["apns-priority"]) == (android, apple)


async def test_without_a_title_the_brand_stands_above(sender: Sender, fake: FcmFake) -> None:
    await sent(sender, title=None)
    assert fake.taken[0]["raw"]["notification"]["title"] == "Tocsin"


async def test_the_largest_text_stays_within_fcms_limit(sender: Sender) -> None:
    outcome = await sent(sender, "t" * 300, title="🎉" * 400, text="🎉" * 400, metadata={"actionUrl": "/" + "🎉" * 600})
    assert outcome.kind is SENT


async def test_a_message_without_a_device_is_not_sent(sender: Sender, fake: FcmFake) -> None:
    outcome = await sender.send(a_message(Channel.PUSH, tokens=(), address=""))
    assert (outcome.kind, outcome.reason, fake.asked) == (PERMANENT, Reason.NO_ADDRESS, 0)


class TokenFake(FcmFake):
    """Answers requests for access tokens with `said`, or hangs up."""

    said: WebAnswer | None = None

    async def pass_on(self, request: WebRequest) -> WebAnswer:
        if request.path == "/token":
            self.signed_in = getattr(self, "signed_in", 0) + 1
            if self.said is not None:
                if self.said.status == 0:
                    raise HangUp
                return self.said
        return await super().pass_on(request)


@pytest.mark.parametrize(
    ("said", "kind", "reason"),
    [
        (WebAnswer(400, {"error": "invalid_grant"}), PERMANENT, Reason.NOT_CONFIGURED),
        (WebAnswer(401, {"error": "invalid_client"}), PERMANENT, Reason.NOT_CONFIGURED),
        (WebAnswer(502, "bad gateway"), TEMPORARY, Reason.PROVIDER_DOWN),
        (WebAnswer(200, "what?"), TEMPORARY, Reason.PROVIDER_DOWN),
        (WebAnswer(200, {"no": "token"}), TEMPORARY, Reason.PROVIDER_DOWN),
        (WebAnswer(0, None), TEMPORARY, Reason.PROVIDER_DOWN),
    ],
)
async def test_without_an_access_token_nothing_was_sent(said: WebAnswer, kind: OutcomeKind, reason: Reason) -> None:
    fake = TokenFake()
    fake.said = said
    await fake.start()
    settings = load({}).with_values({f"push.fcm.{name}": value for name, value in fake.table().items()})
    context = BuildContext(False, None, "Tocsin", None, {})
    sender = fcm.PROVIDER.build(settings.provider_settings("push.fcm", fcm.FcmSettings), context)
    outcome = await sent(sender)
    assert (outcome.kind, outcome.reason, fake.asked) == (kind, reason, 0), outcome
    fake.said = None
    assert (await sent(sender)).kind is SENT
    await sender.close()
    await fake.stop()


async def test_one_access_token_serves_all() -> None:
    fake = TokenFake()
    await fake.start()
    settings = load({}).with_values({f"push.fcm.{name}": value for name, value in fake.table().items()})
    context = BuildContext(False, None, "Tocsin", None, {})
    sender = fcm.PROVIDER.build(settings.provider_settings("push.fcm", fcm.FcmSettings), context)
    await asyncio.gather(*(sent(sender) for _ in range(20)))
    assert fake.signed_in == 1
    await sender.close()
    await fake.stop()


async def test_a_key_with_its_line_ends_written_out_is_read(build: Build, fake: FcmFake) -> None:
    sender = build(private_key=fake.server.private_key.replace("\n", "\\n"))
    assert (await sent(sender)).kind is SENT


def test_a_key_that_is_none_is_refused_without_being_shown(build: Build) -> None:
    with pytest.raises(SettingError, match=r"push\.fcm\.private_key") as caught:
        build(private_key="-----BEGIN PRIVATE KEY-----\nbm90IGEga2V5\n-----END PRIVATE KEY-----\n")
    assert "bm90IGEga2V5" not in str(caught.value)
    for name in ("private_key", "client_email"):
        with pytest.raises(SettingError, match=rf"push\.fcm\.{name}"):
            build(**{name: ""})


async def test_closing_leaves_no_app_behind(build: Build) -> None:
    before = set(firebase_admin._apps)
    senders = [build(), build()]
    assert len(set(firebase_admin._apps) - before) == 2
    for sender in senders:
        await sender.close()
        await sender.close()
    assert set(firebase_admin._apps) == before


async def test_nothing_is_asked_of_google_when_the_address_is_another(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    asked: list[str] = []
    resolve = socket.getaddrinfo

    def noted(host: Any, *rest: Any, **more: Any) -> Any:
        asked.append(str(host))
        return resolve(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", noted)
    await sent(sender)
    assert set(asked) == {"127.0.0.1"}
    assert not [thread.name for thread in threading.enumerate() if "RegionalAccess" in type(thread).__name__]
