"""What every provider must do, tried on every provider that is found, against a server that misbehaves.

A new provider is covered by a fake of its own: a module of its name in tests/fakes with a `FAKE`.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from importlib import import_module
from typing import Any

import pytest

from tests.fakes.behaviour import TOKEN, Behaviour, Fake, a_message
from tocsin.channels.contract import Askable, BuildContext, Message, Outcome, OutcomeKind, Provider, Sender
from tocsin.channels.registry import find_providers
from tocsin.domain.delivery import Channel, Reason
from tocsin.domain.errors import SettingError
from tocsin.domain.settings import load
from tocsin.domain.units import parse_duration

TIMEOUT = "1s"
TIMEOUT_S = parse_duration(TIMEOUT) / 1000
SLACK_S = 1.0
RETRY_AFTER_S = 7.0

Build = Callable[..., Sender]


@pytest.fixture(params=find_providers(), ids=lambda provider: provider.name)
def provider(request: pytest.FixtureRequest) -> Provider:
    found: Provider = request.param
    return found


@pytest.fixture
async def fake(provider: Provider) -> AsyncIterator[Fake]:
    made: Fake = import_module(f"tests.fakes.{provider.name}").FAKE()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def build(provider: Provider) -> AsyncIterator[Build]:
    """Builds senders and closes them."""
    made: list[Sender] = []

    def build_one(table: dict[str, Any], *, sandbox: bool = False) -> Sender:
        settings = load({}).with_values({f"{provider.section}.{name}": value for name, value in table.items()})
        context = BuildContext(sandbox, "http://127.0.0.1:9", "Tocsin", "1 Main Street", {}, 10, 150)
        made.append(provider.build(settings.provider_settings(provider.section, provider.settings), context))
        return made[-1]

    yield build_one
    await asyncio.gather(*(sender.close() for sender in made))


@pytest.fixture
def sender(fake: Fake, build: Build) -> Sender:
    return build({**fake.table(), "timeout": TIMEOUT})


async def timed(sender: Sender, message: Message) -> tuple[Outcome, float]:
    began = time.monotonic()
    outcome = await sender.send(message)
    return outcome, time.monotonic() - began


async def eventually(condition: Callable[[], Any], limit_s: float = 5.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.002)


async def test_a_message_is_sent_once_and_carries_its_ids(sender: Sender, fake: Fake) -> None:
    message = a_message(sender.channel, attempt=2)
    outcome = await sender.send(message)
    assert outcome.kind is OutcomeKind.SENT, outcome
    assert outcome.provider_id
    assert [(each["delivery"], each["attempt"]) for each in fake.taken] == [(str(message.delivery), 2)]


async def test_it_says_who_carries(provider: Provider, fake: Fake, build: Build) -> None:
    sender = build(dict(fake.table()))
    assert (sender.provider, sender.channel, sender.configured) == (provider.name, provider.channel, True)
    assert sender.concurrency >= 1
    assert build(dict(fake.table()), sandbox=True).provider == "sandbox"


async def test_what_can_be_asked_is_tried_by_the_suite_of_those(provider: Provider, sender: Sender) -> None:
    fakes = import_module(f"tests.fakes.{provider.name}")
    assert isinstance(sender, Askable) == hasattr(fakes, "ASKABLE"), "tests/test_askable.py asks those marked so"


async def test_without_credentials_nothing_is_sent_and_it_says_so(provider: Provider, build: Build) -> None:
    sender = build({})
    assert not sender.configured
    outcome = await sender.send(a_message(sender.channel))
    assert (outcome.kind, outcome.reason) == (OutcomeKind.PERMANENT, Reason.NOT_CONFIGURED)
    with pytest.raises(SettingError, match=provider.section):
        await sender.check()


async def test_an_unknown_setting_is_refused_by_its_name(provider: Provider, build: Build) -> None:
    with pytest.raises(SettingError, match=rf"{provider.section}\.nonsense"):
        build({"nonsense": "1"})
    with pytest.raises(SettingError, match=rf"{provider.section}\.timeout"):
        build({"timeout": "soon"})


async def test_a_provider_that_takes_and_never_answers_leaves_the_outcome_unknown(sender: Sender, fake: Fake) -> None:
    fake.behaviour = Behaviour.HANG
    outcome, took_s = await timed(sender, a_message(sender.channel))
    assert (outcome.kind, outcome.reason) == (OutcomeKind.UNKNOWN, Reason.TIMEOUT), outcome
    assert took_s < TIMEOUT_S + SLACK_S
    assert (fake.asked, len(fake.taken)) == (1, 1)


async def test_a_connection_lost_after_the_message_was_taken_leaves_the_outcome_unknown(
    sender: Sender, fake: Fake
) -> None:
    fake.behaviour = Behaviour.DROP
    outcome, _ = await timed(sender, a_message(sender.channel))
    assert (outcome.kind, outcome.reason) == (OutcomeKind.UNKNOWN, Reason.CONNECTION_LOST), outcome
    assert (fake.asked, len(fake.taken)) == (1, 1)


async def test_a_provider_that_cannot_be_reached_is_tried_again(sender: Sender, fake: Fake) -> None:
    await fake.stop()
    outcome, took_s = await timed(sender, a_message(sender.channel))
    assert (outcome.kind, outcome.reason) == (OutcomeKind.TEMPORARY, Reason.PROVIDER_DOWN), outcome
    assert took_s < TIMEOUT_S + SLACK_S


async def test_a_refusal_is_for_good(sender: Sender, fake: Fake) -> None:
    fake.behaviour = Behaviour.REFUSE
    outcome, _ = await timed(sender, a_message(sender.channel))
    assert (outcome.kind, outcome.reason) == (OutcomeKind.PERMANENT, Reason.REJECTED), outcome
    assert (outcome.code, outcome.retry_after_s, fake.asked) == (outcome.code or "no code", None, 1)


async def test_an_error_inside_the_provider_is_tried_again_later_and_not_in_secret(sender: Sender, fake: Fake) -> None:
    fake.behaviour = Behaviour.FAIL
    outcome, _ = await timed(sender, a_message(sender.channel))
    assert outcome.kind is OutcomeKind.TEMPORARY, outcome
    assert fake.asked == 1


async def test_a_provider_that_asks_for_patience_gets_it(sender: Sender, fake: Fake) -> None:
    fake.behaviour = Behaviour.BUSY
    outcome, _ = await timed(sender, a_message(sender.channel))
    assert (outcome.kind, outcome.reason) == (OutcomeKind.TEMPORARY, Reason.RATE_LIMITED), outcome
    assert outcome.retry_after_s is None or outcome.retry_after_s >= RETRY_AFTER_S
    assert (outcome.retry_after_s is None) == (sender.channel is Channel.EMAIL), "SMTP has no Retry-After"
    assert fake.asked == 1


async def test_nonsense_is_no_yes(sender: Sender, fake: Fake) -> None:
    fake.behaviour = Behaviour.GARBAGE
    outcome, _ = await timed(sender, a_message(sender.channel))
    assert outcome.kind is OutcomeKind.UNKNOWN, outcome
    assert fake.asked == 1


async def test_it_works_again_once_the_provider_does(sender: Sender, fake: Fake) -> None:
    for behaviour in Behaviour:
        fake.behaviour = behaviour
        await sender.send(a_message(sender.channel))
    fake.behaviour = Behaviour.TAKE
    assert (await sender.send(a_message(sender.channel))).kind is OutcomeKind.SENT


async def test_neither_secret_nor_address_leaks(sender: Sender, fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    message = a_message(sender.channel)
    for behaviour in Behaviour:
        fake.behaviour = behaviour
        outcome = await sender.send(message)
        told = f"{outcome} {caplog.text}".lower()
        assert len(outcome.message or "") <= 512
        for private in (message.address, message.address.partition("@")[0], TOKEN, *fake.secrets):
            if private != "1 device":
                assert private.lower() not in told, behaviour


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script><b>bold</b> & 'quotes' \"\"",
        "one\r\nBcc: victim@example.org\r\n\r\n.\r\nMAIL FROM:<x@example.org>\n.\n..\n",
        "nul \x00 bell \x07 escape \x1b[31m",
        "half a pair \ud83d and \udc00",
        "👨‍👩‍👧‍👦" * 200,
        "x" * 10_000,
        "{{ 7 * 7 }} {% raw %} ${jndi:ldap://x} %s %(a)s {0}",
        "עברית \u202e مرحبا",
        " \n\t ",
        "a" * 998 + "\n" + "b" * 3000,
    ],
    ids=["html", "crlf", "controls", "surrogates", "emoji", "long", "templates", "bidi", "blank", "long lines"],
)
async def test_hostile_text_arrives_as_text(sender: Sender, fake: Fake, text: str) -> None:
    message = a_message(sender.channel, text=text, title=text[:200], name=text[:200], event_type=text[:100])
    outcome, _ = await timed(sender, message)
    expected = (OutcomeKind.PERMANENT,) if not text.strip() and sender.channel is Channel.SMS else (OutcomeKind.SENT,)
    assert outcome.kind in expected, outcome
    assert len(fake.taken) == (1 if outcome.kind is OutcomeKind.SENT else 0)
    assert "\x00" not in "".join(each["text"] for each in fake.taken)


@pytest.mark.parametrize(
    "link",
    ["javascript:alert(1)", "//evil.example", "http://\r\nX: y", 'https://e.example/"><b>', {"a": 1}, "/events/9"],
)
async def test_a_hostile_link_is_left_out_or_made_safe(sender: Sender, fake: Fake, link: Any) -> None:
    outcome = await sender.send(a_message(sender.channel, metadata={"actionUrl": link, "from": "x", "gcm.x": "y"}))
    assert outcome.kind is OutcomeKind.SENT, outcome
    raw = str(fake.taken[0]["raw"])
    assert not any(bad in raw for bad in ("javascript:", "evil.example", '"><b>'))


async def test_as_many_at_once_as_it_says_and_no_more(fake: Fake, build: Build) -> None:
    sender = build(dict(fake.table()))
    fake.delay_s = 0.02  # type: ignore[attr-defined]
    messages = [a_message(sender.channel) for _ in range(3 * sender.concurrency)]
    room = asyncio.Semaphore(sender.concurrency)

    async def send(message: Message) -> Outcome:
        async with room:
            return await sender.send(message)

    outcomes = await asyncio.gather(*map(send, messages))
    assert {outcome.kind for outcome in outcomes} == {OutcomeKind.SENT}
    assert sorted(each["delivery"] for each in fake.taken) == sorted(str(message.delivery) for message in messages)
    assert fake.most_at_once <= sender.concurrency


async def test_a_send_that_is_given_up_does_no_harm(sender: Sender, fake: Fake) -> None:
    fake.behaviour = Behaviour.HANG
    for _ in range(2 * sender.concurrency):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(sender.send(a_message(sender.channel)), 0.02)
    fake.behaviour = Behaviour.TAKE
    deadline = time.monotonic() + 10
    while (await sender.send(a_message(sender.channel))).kind is not OutcomeKind.SENT:
        assert time.monotonic() < deadline


async def test_closing_does_not_wait_for_a_provider_that_hangs(sender: Sender, fake: Fake) -> None:
    fake.behaviour = Behaviour.HANG
    sending = asyncio.create_task(sender.send(a_message(sender.channel)))
    await eventually(lambda: fake.asked)
    began = time.monotonic()
    await sender.close()
    assert time.monotonic() - began < SLACK_S
    assert (await sending).kind in {OutcomeKind.UNKNOWN, OutcomeKind.TEMPORARY}


async def test_a_login_is_tried_without_sending(fake: Fake, build: Build) -> None:
    await build(dict(fake.table())).check()
    assert (fake.asked, fake.taken) == (0, [])


async def test_wrong_credentials_are_told_with_the_setting_and_no_secret(
    provider: Provider, fake: Fake, build: Build
) -> None:
    sender = build({**fake.table(), **fake.wrong_credentials()})
    with pytest.raises(SettingError, match=provider.section) as caught:
        await sender.check()
    assert not any(secret in str(caught.value) for secret in fake.secrets)
    outcome = await sender.send(a_message(sender.channel))
    assert (outcome.kind, outcome.reason) == (OutcomeKind.PERMANENT, Reason.NOT_CONFIGURED), outcome


async def test_a_provider_that_is_away_is_told_by_the_check(sender: Sender, fake: Fake) -> None:
    await fake.stop()
    with pytest.raises(SettingError):
        await sender.check()
