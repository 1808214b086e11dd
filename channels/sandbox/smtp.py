"""The sandbox's mail server. It takes every mail, except where the name before the @ asks for something else:

bounce@ refused for good (550 5.1.1) · policy@ refused as policy (550 5.7.1) · busy@ refused for now (451 4.7.1) ·
drop@ taken, and the connection closed without an answer
"""

import asyncio
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, Final

from aiosmtpd.smtp import SMTP, Envelope, Session

from tocsin.channels.sandbox.outbox import Outbox
from tocsin.domain.delivery import Channel

_REFUSALS: Final = {
    "bounce": "550 5.1.1 There is no such mailbox",
    "policy": "550 5.7.1 Refused by policy",
    "busy": "451 4.7.1 Try again later",
}
_LARGEST_MAIL: Final = 10 * 1024 * 1024


class _Handler:
    """What aiosmtpd calls; the names are its own."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        refusal = _REFUSALS.get(address.partition("@")[0].lower())
        if refusal:
            return refusal
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        raw: bytes = envelope.content if isinstance(envelope.content, bytes) else str(envelope.content).encode()
        mail = message_from_bytes(raw, policy=policy.default)
        entries = [keep_mail(self._outbox, address, mail, raw) for address in envelope.rcpt_tos]
        if any(address.startswith("drop@") for address in envelope.rcpt_tos):
            transport: Any = server.transport
            transport.abort()
        return f"250 2.0.0 OK: queued as sandbox-{entries[0]:06d}"


def keep_mail(outbox: Outbox, address: str, mail: EmailMessage, raw: bytes) -> int:
    """Puts a mail into the outbox; its number there."""
    attempt = str(mail.get("X-Tocsin-Attempt", ""))
    return outbox.add(
        Channel.EMAIL,
        address,
        delivery=_header(mail, "X-Tocsin-Delivery"),
        notification=_header(mail, "X-Tocsin-Notification"),
        attempt=int(attempt) if attempt.isdigit() else None,
        subject=_header(mail, "Subject"),
        text=_body(mail, "plain"),
        html=_body(mail, "html") or None,
        headers={name: str(value) for name, value in mail.items()},
        raw=raw.decode("utf-8", "replace"),
    ).id


async def serve_smtp(outbox: Outbox, **options: Any) -> asyncio.Server:
    """Serves on a free port of the loopback address; `options` are aiosmtpd's own."""
    loop = asyncio.get_running_loop()

    def protocol() -> SMTP:
        return SMTP(
            _Handler(outbox),
            hostname="sandbox.test",
            ident="Tocsin sandbox",
            enable_SMTPUTF8=True,
            data_size_limit=_LARGEST_MAIL,
            loop=loop,
            **options,
        )

    return await loop.create_server(protocol, "127.0.0.1", 0)


def _header(mail: EmailMessage, name: str) -> str | None:
    value = mail.get(name)
    return str(value) if value is not None else None


def _body(mail: EmailMessage, kind: str) -> str:
    part = mail.get_body((kind,))
    content = part.get_content() if part is not None else ""
    return str(content).replace("\r\n", "\n")
