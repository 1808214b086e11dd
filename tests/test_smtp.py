"""Mail over SMTP: how it is secured, what each reply at each step means, and that connections are used again."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import server_context
from tests.fakes.behaviour import SECRET, a_message
from tests.fakes.smtp import DROP, HANG, USER, SmtpFake
from tests.workbench import eventually
from tocsin.channels import smtp, smtp_pool
from tocsin.channels.contract import BuildContext, OutcomeKind, Sender
from tocsin.domain.delivery import Channel, Reason
from tocsin.domain.errors import SettingError
from tocsin.domain.settings import load

Build = Callable[..., Sender]
PERMANENT, TEMPORARY, UNKNOWN, SENT = (
    OutcomeKind.PERMANENT,
    OutcomeKind.TEMPORARY,
    OutcomeKind.UNKNOWN,
    OutcomeKind.SENT,
)


def a_sender(table: dict[str, Any]) -> Sender:
    settings = load({}).with_values({f"email.smtp.{name}": value for name, value in table.items()})
    context = BuildContext(False, "https://tell.example.org", "Tocsin", None, {})
    return smtp.PROVIDER.build(settings.provider_settings("email.smtp", smtp.SmtpSettings), context)


@pytest.fixture
async def fake() -> AsyncIterator[SmtpFake]:
    made = SmtpFake()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def sender(fake: SmtpFake) -> AsyncIterator[Sender]:
    made = a_sender({**fake.table(), "timeout": "500ms"})
    yield made
    await made.close()


async def sent(sender: Sender, **changes: Any) -> Any:
    return await sender.send(a_message(Channel.EMAIL, **changes))


@pytest.mark.parametrize("implicit", [False, True], ids=["starttls", "tls"])
async def test_a_trusted_server_is_spoken_to_in_secret(tmp_path: Path, implicit: bool) -> None:
    tls, ca_file = server_context(tmp_path)
    fake = SmtpFake(tls=tls, implicit=implicit)
    await fake.start()
    sender = a_sender({**fake.table(), "security": "tls" if implicit else "starttls", "ca_file": str(ca_file)})
    assert (await sent(sender)).kind is SENT
    words = [line.split(" ")[0].upper() for line in fake.commands]
    if not implicit:
        assert words.index("STARTTLS") < words.index("AUTH")
    assert "AUTH" in words
    await sender.close()
    await fake.stop()


@pytest.mark.parametrize("implicit", [False, True], ids=["starttls", "tls"])
async def test_a_server_that_is_not_trusted_learns_nothing(tmp_path: Path, implicit: bool) -> None:
    tls, _ = server_context(tmp_path)
    fake = SmtpFake(tls=tls, implicit=implicit)
    await fake.start()
    sender = a_sender({**fake.table(), "security": "tls" if implicit else "starttls"})
    outcome = await sent(sender)
    assert (outcome.kind, outcome.reason) == (TEMPORARY, Reason.PROVIDER_DOWN)
    assert "certificate" in outcome.message
    assert not any(line.startswith(("AUTH", "MAIL")) for line in fake.commands)
    with pytest.raises(SettingError, match="certificate"):
        await sender.check()
    await sender.close()
    await fake.stop()


async def test_a_server_with_the_name_of_another_is_not_trusted(tmp_path: Path) -> None:
    tls, ca_file = server_context(tmp_path, address="127.0.0.2")
    fake = SmtpFake(tls=tls)
    await fake.start()
    sender = a_sender({**fake.table(), "security": "starttls", "ca_file": str(ca_file)})
    assert "certificate" in (await sent(sender)).message
    await sender.close()
    await fake.stop()


async def test_starttls_that_is_not_offered_never_becomes_plain_text(fake: SmtpFake) -> None:
    sender = a_sender({**fake.table(), "security": "starttls"})
    outcome = await sent(sender)
    assert (outcome.kind, outcome.reason) == (TEMPORARY, Reason.PROVIDER_DOWN)
    assert "STARTTLS" in outcome.message
    assert not any(line.startswith(("AUTH", "MAIL")) for line in fake.commands)
    await sender.close()


async def test_without_a_name_there_is_no_login(fake: SmtpFake) -> None:
    sender = a_sender({**fake.table(), "username": "", "password": ""})
    assert (await sent(sender)).kind is SENT
    assert not any(line.startswith("AUTH") for line in fake.commands)
    await sender.close()


def test_settings_that_cannot_work_are_refused_with_the_mend() -> None:
    base = {"host": "mail.example.org", "from_email": "a@example.org"}
    for wrong, name in [
        ({"from_email": ""}, "from_email"),
        ({"from_email": "nobody"}, "from_email"),
        ({"from_email": "ü@example.org"}, "from_email"),
        ({"password": SECRET}, "username"),
        ({"ca_file": "/nowhere/ca.pem"}, "ca_file"),
        ({"port": 0}, "port"),
        ({"security": "ssl"}, "security"),
    ]:
        with pytest.raises(SettingError, match=rf"email\.smtp\.{name}") as caught:
            a_sender({**base, **wrong})
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("step", "reply", "kind", "reason", "code"),
    [
        ("CONNECT", "554 5.7.1 go away", PERMANENT, Reason.REJECTED, "554 5.7.1"),
        ("CONNECT", "421 4.3.2 too busy", TEMPORARY, Reason.PROVIDER_DOWN, "421 4.3.2"),
        ("AUTH", "535 5.7.8 wrong", PERMANENT, Reason.NOT_CONFIGURED, "535 5.7.8"),
        ("AUTH", "454 4.7.0 later", TEMPORARY, Reason.PROVIDER_DOWN, "454 4.7.0"),
        ("MAIL", "530 5.7.0 authentication required", PERMANENT, Reason.NOT_CONFIGURED, "530 5.7.0"),
        ("MAIL", "553 5.1.8 sender's domain", PERMANENT, Reason.REJECTED, "553 5.1.8"),
        ("MAIL", "550 5.1.1 odd place for this", PERMANENT, Reason.REJECTED, "550 5.1.1"),
        ("MAIL", "451 4.3.0 later", TEMPORARY, Reason.REJECTED, "451 4.3.0"),
        ("RCPT", "550 5.1.1 no such user", PERMANENT, Reason.INVALID_ADDRESS, "550 5.1.1"),
        ("RCPT", "550 5.1.10 null MX", PERMANENT, Reason.INVALID_ADDRESS, "550 5.1.10"),
        ("RCPT", "550 no such user", PERMANENT, Reason.REJECTED, "550"),
        ("RCPT", "550 5.7.1 blocked", PERMANENT, Reason.REJECTED, "550 5.7.1"),
        ("RCPT", "552 5.2.2 full", PERMANENT, Reason.REJECTED, "552 5.2.2"),
        ("RCPT", "452 4.2.2 full for now", TEMPORARY, Reason.REJECTED, "452 4.2.2"),
        ("RCPT", "451 4.7.1 greylisted", TEMPORARY, Reason.RATE_LIMITED, "451 4.7.1"),
        ("RCPT", "421 4.7.0 slow down", TEMPORARY, Reason.RATE_LIMITED, "421 4.7.0"),
        ("DATA", "451 4.3.0 no room", TEMPORARY, Reason.REJECTED, "451 4.3.0"),
        ("DATA", "554 5.5.1 no valid recipients", PERMANENT, Reason.REJECTED, "554 5.5.1"),
        ("BODY", "554 5.6.0 spam", PERMANENT, Reason.REJECTED, "554 5.6.0"),
        ("BODY", "452 4.3.1 disk full", TEMPORARY, Reason.REJECTED, "452 4.3.1"),
        ("BODY", "250-2.0.0 more\r\n250 2.0.0 OK", SENT, None, None),
        ("BODY", "299 what", UNKNOWN, Reason.CONNECTION_LOST, None),
        ("MAIL", "299 what", TEMPORARY, Reason.PROVIDER_DOWN, None),
        *[(step, DROP, TEMPORARY, Reason.PROVIDER_DOWN, None) for step in ("CONNECT", "EHLO", "AUTH", "MAIL", "RCPT")],
        *[(step, DROP, UNKNOWN, Reason.CONNECTION_LOST, None) for step in ("DATA", "BODY")],
        *[(step, HANG, TEMPORARY, Reason.TIMEOUT, None) for step in ("CONNECT", "EHLO", "AUTH", "MAIL", "RCPT")],
        *[(step, HANG, UNKNOWN, Reason.TIMEOUT, None) for step in ("DATA", "BODY")],
    ],
)
async def test_what_each_reply_at_each_step_means(
    sender: Sender, fake: SmtpFake, step: str, reply: str, kind: OutcomeKind, reason: Reason, code: str
) -> None:
    fake.replies[step] = reply
    outcome = await sent(sender)
    assert (outcome.kind, outcome.reason, outcome.code) == (kind, reason, code), outcome
    fake.replies.clear()
    assert (await sent(sender)).kind is SENT, "what comes next is not harmed"


async def test_the_servers_own_name_of_a_mail_is_kept(sender: Sender, fake: SmtpFake) -> None:
    for said, kept in [
        ("250 2.0.0 Ok: queued as 4XyZ12abc", "4XyZ12abc"),
        ("250 OK id=1rXabc-0000Ab-2C", "1rXabc-0000Ab-2C"),
        ("250 Ok 010001890abcdef-1234-5678", "010001890abcdef-1234-5678"),
    ]:
        fake.replies["BODY"] = said
        assert (await sent(sender)).provider_id == kept
    fake.replies["BODY"] = "250 thanks"
    message = a_message(Channel.EMAIL, attempt=3)
    assert (await sender.send(message)).provider_id == f"{message.delivery}@example.com"


@pytest.mark.parametrize("text", ["Come at nine.", ".first\n..second\nlast", "ends with\n.", "Grüße\n.zwei"])
async def test_every_line_of_a_mail_arrives_as_it_was_written(sender: Sender, fake: SmtpFake, text: str) -> None:
    assert (await sent(sender, text=text)).kind is SENT
    assert (await sent(sender, text="after it")).kind is SENT
    assert [mail["text"].split("\n\n-- \n")[0].split("\n\nhttp")[0] for mail in fake.taken] == [text, "after it"]


async def test_a_connection_is_used_again(sender: Sender, fake: SmtpFake) -> None:
    for _ in range(10):
        assert (await sent(sender)).kind is SENT
    assert (fake.connections, len(fake.taken)) == (1, 10)
    assert not any(line.startswith("NOOP") for line in fake.commands)


async def test_a_refused_mail_leaves_the_connection_good(sender: Sender, fake: SmtpFake) -> None:
    fake.replies["RCPT"] = "550 5.1.1 no"
    await sent(sender)
    fake.replies.clear()
    await sent(sender)
    assert fake.connections == 1
    assert "RSET" in fake.commands


@pytest.mark.parametrize(("step", "reply"), [("BODY", "554 5.6.0 spam"), ("RCPT", "550 5.7.1 blocked")])
async def test_a_server_that_stalls_after_a_refusal_takes_nothing_back(
    sender: Sender, fake: SmtpFake, step: str, reply: str
) -> None:
    fake.replies |= {step: reply, "RSET": HANG}
    outcome = await sent(sender)
    assert (outcome.kind, outcome.reason) == (PERMANENT, Reason.REJECTED)
    del fake.replies[step]
    assert (await sent(sender)).kind is SENT
    assert fake.connections == 2


async def test_a_kept_connection_that_stalls_leaves_time_for_another(
    sender: Sender, fake: SmtpFake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp_pool, "_IDLE_BEFORE_NOOP_S", 0.0)
    await sent(sender)
    fake.replies["NOOP"] = HANG
    assert (await sent(sender)).kind is SENT
    assert fake.connections == 2


async def test_however_many_kept_connections_stall_there_is_time_for_another(
    sender: Sender, fake: SmtpFake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp_pool, "_IDLE_BEFORE_NOOP_S", 0.0)
    await asyncio.gather(*(sent(sender) for _ in range(sender.concurrency)))
    kept = fake.connections
    fake.replies["NOOP"] = HANG
    assert (await sent(sender)).kind is SENT
    assert (kept, fake.connections) == (sender.concurrency, kept + 1)


async def test_a_connection_that_is_being_asked_when_its_send_is_broken_off_is_closed(
    fake: SmtpFake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp_pool, "_IDLE_BEFORE_NOOP_S", 0.0)
    sender = a_sender(dict(fake.table()))
    assert isinstance(sender, smtp.SmtpSender)
    await sent(sender)
    (kept,) = sender._pool._idle
    fake.replies["NOOP"] = HANG
    sending = asyncio.create_task(sent(sender))

    async def asked() -> bool:
        return "NOOP" in fake.commands

    await eventually(asked)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert not kept.client.is_connected
    await sender.close()


async def test_a_connection_that_lay_idle_is_asked_first(
    sender: Sender, fake: SmtpFake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp_pool, "_IDLE_BEFORE_NOOP_S", 0.0)
    await sent(sender)
    await sent(sender)
    assert fake.commands.count("NOOP") == 1
    fake.replies["NOOP"] = "421 4.4.2 idle too long"
    await sent(sender)
    assert (fake.connections, len(fake.taken)) == (2, 3)


async def test_a_connection_that_lay_idle_too_long_is_left(
    sender: Sender, fake: SmtpFake, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sent(sender)
    monkeypatch.setattr(smtp_pool, "_IDLE_BEFORE_CLOSE_S", 0.0)
    await sent(sender)
    assert (fake.connections, len(fake.taken)) == (2, 2)


async def test_a_kept_connection_that_the_server_closed_costs_no_attempt(sender: Sender, fake: SmtpFake) -> None:
    await sent(sender)
    fake.hang_up_on_everybody()
    assert (await sent(sender)).kind is SENT
    assert (fake.connections, len(fake.taken)) == (2, 2)


async def test_a_kept_connection_that_is_told_to_go_costs_no_attempt(sender: Sender, fake: SmtpFake) -> None:
    await sent(sender)
    said = iter(["421 4.7.0 too many mails on this connection"])
    replies = fake._reply
    fake._reply = lambda step, line, **how: (
        (  # type: ignore[method-assign]
            next(said, None) if step == "MAIL" else None
        )
        or replies(step, line, **how)
    )
    assert (await sent(sender)).kind is SENT
    assert (fake.connections, len(fake.taken)) == (2, 2)


async def test_no_more_connections_than_set(fake: SmtpFake) -> None:
    sender = a_sender({**fake.table(), "connections": 3})
    fake.delay_s = 0.01
    outcomes = await asyncio.gather(*(sent(sender) for _ in range(30)))
    assert {outcome.kind for outcome in outcomes} == {SENT}
    assert fake.most_at_once <= 3
    assert fake.connections <= 3
    await sender.close()
    assert fake.commands.count("QUIT") == fake.connections


async def test_an_address_beyond_ascii_needs_a_server_that_knows_it(sender: Sender, fake: SmtpFake) -> None:
    assert (await sent(sender, address="δοκιμή@example.org")).kind is SENT
    assert "RCPT TO:<δοκιμή@example.org>" in fake.commands
    assert (await sent(sender, address="ann@bücher.example")).kind is SENT
    assert "RCPT TO:<ann@xn--bcher-kva.example>" in fake.commands
    fake.extensions = ["AUTH PLAIN"]
    plain = a_sender(dict(fake.table()))
    outcome = await sent(plain, address="δοκιμή@example.org")
    assert (outcome.kind, outcome.reason) == (PERMANENT, Reason.REJECTED)
    assert "SMTPUTF8" in outcome.message
    assert (await sent(plain, address="ann@bücher.example")).kind is SENT
    await plain.close()


@pytest.mark.parametrize(
    "address",
    ["nobody", "a@b\r\nRCPT TO:<x@example.org>", "a b@example.org", "<a@example.org>", "a@", "@b", "a@b@c", ""],
)
async def test_what_is_no_address_reaches_no_server(sender: Sender, fake: SmtpFake, address: str) -> None:
    outcome = await sent(sender, address=address)
    assert (outcome.kind, outcome.reason) == (PERMANENT, Reason.INVALID_ADDRESS)
    assert fake.commands == []


async def test_the_login_that_is_checked_is_the_one_that_is_used(sender: Sender, fake: SmtpFake) -> None:
    await sender.check()
    assert USER not in str(fake.commands[-1])
    assert any(line.startswith("AUTH") for line in fake.commands)
    assert not any(line.startswith("MAIL") for line in fake.commands)
