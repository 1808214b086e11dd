"""Email over SMTP by aiosmtplib: any server, with STARTTLS, TLS from the first byte, or neither.

MAIL, RCPT and DATA are sent apart: whatever goes wrong before DATA is known not to have been sent, and what goes wrong
after it is known to be unknown, since a server may have stored a mail whose answer never came.
"""

import asyncio
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Final, Literal

from aiosmtplib import (
    SMTP,
    SMTPDataError,
    SMTPException,
    SMTPRecipientRefused,
    SMTPResponse,
    SMTPResponseException,
    SMTPSenderRefused,
    SMTPServerDisconnected,
    SMTPStatus,
)
from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, Field

from tocsin.channels.cleaning import cleaned, private_parts
from tocsin.channels.contract import BuildContext, Message, Outcome, OutcomeKind, Provider, RatedTable, Sender
from tocsin.channels.letter import Letterhead, compose
from tocsin.channels.smtp_pool import Connection, Pool, Server
from tocsin.channels.smtp_replies import after_loss, after_reply, is_closing, queue_id, words
from tocsin.channels.unconfigured import Unconfigured
from tocsin.domain.delivery import Channel, Reason
from tocsin.domain.errors import SettingError
from tocsin.domain.rate import Rate
from tocsin.domain.units import DurationMs

SECTION: Final = "email.smtp"


def _plain_address(text: str) -> str:
    """The address in ASCII: a sender beyond ASCII would ask SMTPUTF8 of every server on the way."""
    try:
        found = validate_email(text, check_deliverability=False, test_environment=True).ascii_email
    except EmailNotValidError:
        found = None
    if found is None:
        raise ValueError("write an address of the form name@domain, in ASCII before the @")
    return found


_PLAIN_NAME: Final = re.compile(r"(?=.{1,64}$)[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*")
"""What stands before the @ of nearly all addresses, and needs no closer look."""
_LONGEST_ADDRESS: Final = 254


class SmtpSettings(RatedTable):
    """The table `email.smtp`."""

    host: str | None = None
    port: int = Field(default=587, ge=1, le=65535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: str | None = None
    password: str | None = Field(default=None, repr=False)
    from_email: Annotated[str, AfterValidator(_plain_address)] | None = None
    ca_file: Path | None = None
    timeout: DurationMs = 30_000
    connections: int = Field(default=4, ge=1, le=100)


@dataclass(frozen=True, slots=True)
class _Envelope:
    """A mail and where it goes, as the server is told."""

    sender: str
    to: str
    mail: bytes
    international: bool
    message_id: str


class _Stale(Exception):
    """A kept connection turned out to be closed before anything was handed over."""


class _Progress:
    """Whether DATA has begun: from then on a lost answer leaves the outcome unknown."""

    handed_over = False


class SmtpSender:
    """Mail through one server."""

    channel = Channel.EMAIL
    configured = True

    def __init__(
        self, server: Server, head: Letterhead, provider: str, connections: int, rate: Rate | None = None
    ) -> None:
        self.provider = provider
        self.concurrency = connections
        self.rate = rate
        self.timeout_s = server.timeout_s
        self._head = head
        self._private = tuple(filter(None, (server.password, server.username)))
        self._pool = Pool(server, connections)

    async def send(self, message: Message) -> Outcome:
        try:
            to, international = _recipient(message.address)
        except EmailNotValidError:
            return Outcome(OutcomeKind.PERMANENT, Reason.INVALID_ADDRESS, message="the address is not an email address")
        mail = compose(message, self._head, to, now=datetime.now(UTC))
        message_id = f"{message.delivery}@{self._head.domain}"
        envelope = _Envelope(self._head.from_email, to, mail, international, message_id)
        progress = _Progress()
        private = (*self._private, *private_parts(to))
        if to != message.address:
            private += private_parts(message.address)
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self._deliver(envelope, progress, private)
        except SMTPResponseException as error:
            return after_reply(error, private, handed_over=progress.handed_over)
        except (SMTPException, OSError) as error:
            return after_loss(error, private, handed_over=progress.handed_over)

    async def check(self) -> None:
        try:
            async with asyncio.timeout(self.timeout_s), self._pool.connection(fresh=True) as connection:
                await connection.client.noop()
        except (SMTPException, OSError) as error:
            said = cleaned(words(error), self._private) or type(error).__name__
            raise SettingError(f"{SECTION}: the mail server cannot be used: {said}") from error

    async def close(self) -> None:
        await self._pool.close()

    async def _deliver(self, envelope: _Envelope, progress: _Progress, private: tuple[str, ...]) -> Outcome:
        try:
            return await self._once(envelope, progress, private)
        except _Stale:
            return await self._once(envelope, progress, private, fresh=True)

    async def _once(
        self, envelope: _Envelope, progress: _Progress, private: tuple[str, ...], *, fresh: bool = False
    ) -> Outcome:
        async with self._pool.connection(fresh=fresh) as connection:
            client = connection.client
            if envelope.international and not client.supports_extension("smtputf8"):
                said = "the mail server takes no address with characters beyond ASCII before the @ (SMTPUTF8)"
                return Outcome(OutcomeKind.PERMANENT, Reason.REJECTED, message=said)
            try:
                await _address(connection, envelope)
                progress.handed_over = True
                reply = await _data(client, envelope.mail)
            except SMTPResponseException as error:
                if is_closing(error.code):
                    connection.drop()
                connection.refused = True
                return after_reply(error, private, handed_over=progress.handed_over)
        return Outcome(
            OutcomeKind.SENT,
            provider_id=queue_id(reply.message) or envelope.message_id,
            provider_status=str(reply.code),
            message=cleaned(reply.message, private),
        )


async def _address(connection: Connection, envelope: _Envelope) -> None:
    """MAIL and RCPT. Raises _Stale where a kept connection is gone, and what aiosmtplib raises."""
    client = connection.client
    options = [b"SIZE=%d" % len(envelope.mail)] if client.supports_extension("size") else []
    if envelope.international:
        options.append(b"SMTPUTF8")
    try:
        # aiosmtplib's own `mail` and `rcpt` look once more at addresses that have been looked at, which takes longer
        # than the conversation; and a time-out for each of what one time-out is set for.
        reply = await client.execute_command(b"MAIL", _path(b"FROM:", envelope.sender), *options, timeout=None)
        if reply.code != SMTPStatus.completed:
            raise SMTPSenderRefused(reply.code, reply.message, envelope.sender)
        reply = await client.execute_command(b"RCPT", _path(b"TO:", envelope.to), timeout=None)
        if reply.code not in (SMTPStatus.completed, SMTPStatus.will_forward):
            raise SMTPRecipientRefused(reply.code, reply.message, envelope.to)
    except SMTPServerDisconnected as error:
        if connection.reused:
            raise _Stale from error
        raise
    except SMTPResponseException as error:
        if connection.reused and is_closing(error.code):
            raise _Stale from error
        raise


async def _data(client: SMTP, mail: bytes) -> SMTPResponse:
    """DATA and the mail. Raises what aiosmtplib raises."""
    # aiosmtplib's own `data` goes through each line of each mail; ours end as they should, and hardly any begins with a
    # dot.
    protocol = client.protocol
    if protocol is None or not _is_as_sent(mail):
        return await client.data(mail, timeout=None)
    reply = await client.execute_command(b"DATA", timeout=None)
    if reply.code == SMTPStatus.start_input:
        protocol.write(mail + b".\r\n")
        reply = await protocol.read_response()
        if reply.code == SMTPStatus.completed:
            return reply
    raise SMTPDataError(reply.code, reply.message)


def _is_as_sent(mail: bytes) -> bool:
    """Whether a mail goes over the wire as it is: all its lines end with CRLF, and none begins with a dot."""
    ends = mail.count(b"\r\n")
    return mail.endswith(b"\r\n") and mail.count(b"\n") == ends == mail.count(b"\r") and b"\n." not in mail


def _path(word: bytes, address: str) -> bytes:
    return word + b"<" + address.encode() + b">"


def _recipient(address: str) -> tuple[str, bool]:
    """The address to tell the server, and whether it needs SMTPUTF8: a domain alone never does."""
    name, _, domain = address.rpartition("@")
    if _PLAIN_NAME.fullmatch(name) and (known := _plain_domain(domain)) and len(name) + len(known) < _LONGEST_ADDRESS:
        return f"{name}@{known}", False
    found = validate_email(address, check_deliverability=False, test_environment=True)
    return (found.ascii_email, False) if found.ascii_email else (found.normalized, True)


@lru_cache(maxsize=4_096)
def _plain_domain(domain: str) -> str | None:
    """The domain in ASCII, None for one that is none. Looking at it is most of what looking at an address takes, and a
    few domains are most people's."""
    try:
        found = validate_email(f"a@{domain}", check_deliverability=False, test_environment=True)
    except EmailNotValidError:
        return None
    return found.ascii_domain


def _build(settings: SmtpSettings, context: BuildContext) -> Sender:
    provider = "sandbox" if context.sandbox else "smtp"
    if settings.host is None:
        return Unconfigured(Channel.EMAIL, provider, f"{SECTION}.host: not set, so mail is not configured")
    if settings.from_email is None:
        raise SettingError(f"{SECTION}.from_email: set the address that mail comes from (SENDER_EMAIL)")
    if settings.password is not None and settings.username is None:
        raise SettingError(f"{SECTION}.username: set it with the password (SMTP_USER), or unset the password")
    server = Server(
        host=settings.host,
        port=settings.port,
        security=settings.security,
        username=settings.username,
        password=settings.password,
        ca_file=settings.ca_file,
        timeout_s=settings.timeout / 1000,
    )
    head = Letterhead(settings.from_email, context.brand, context.postal_address, context.public_url)
    return SmtpSender(server, head, provider, settings.connections, settings.limit)


PROVIDER: Final[Provider] = Provider("smtp", Channel.EMAIL, SECTION, SmtpSettings, _build)
