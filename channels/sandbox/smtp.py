"""The sandbox's mail server. It takes every mail, except where the name before the @ asks for something else:

bounce@ refused for good (550 5.1.1) · policy@ refused as policy (550 5.7.1) · busy@ refused for now (451 4.7.1) ·
drop@ taken, and the connection closed without an answer
"""

import asyncio
from email import message_from_bytes
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
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
        entries = [keep_mail(self._outbox, address, raw) for address in envelope.rcpt_tos]
        if any(address.startswith("drop@") for address in envelope.rcpt_tos):
            transport: Any = server.transport
            transport.abort()
        return f"250 2.0.0 OK: queued as sandbox-{entries[0]:06d}"


def keep_mail(outbox: Outbox, address: str, raw: bytes) -> int:
    """Puts a mail into the outbox; its number there."""
    # The older of Python's two parsers: five times as fast, and a broadcast's mails all come here.
    mail = message_from_bytes(raw)
    headers = {name: _decoded(value) for name, value in mail.items()}
    attempt = headers.get("X-Tocsin-Attempt", "")
    return outbox.add(
        Channel.EMAIL,
        address,
        delivery=headers.get("X-Tocsin-Delivery"),
        notification=headers.get("X-Tocsin-Notification"),
        attempt=int(attempt) if attempt.isdigit() else None,
        subject=headers.get("Subject"),
        text=_body(mail, "text/plain"),
        html=_body(mail, "text/html") or None,
        headers=headers,
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


def _decoded(value: object) -> str:
    """A header's value with its encoded words read and its folds undone."""
    text = "".join(str(value).splitlines())
    try:
        return str(make_header(decode_header(text))) if "=?" in text else text
    except (HeaderParseError, LookupError, ValueError):
        return text


def _body(mail: Message, content_type: str) -> str:
    """The first part of that type; empty where there is none."""
    for part in mail.walk():
        if part.get_content_type() == content_type:
            content = part.get_payload(decode=True)
            return content.decode("utf-8", "replace").replace("\r\n", "\n") if isinstance(content, bytes) else ""
    return ""
