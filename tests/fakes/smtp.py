"""A mail server whose every reply can be set, to go wrong at any point of the conversation."""

import asyncio
import base64
import ssl
from collections.abc import Mapping
from typing import Any

from tests.fakes.behaviour import SECRET, Behaviour
from tocsin.channels.sandbox.outbox import Outbox
from tocsin.channels.sandbox.smtp import keep_mail

HANG = "hang"
DROP = "drop"
USER = "mailer"

_REPLIES = {
    "CONNECT": "220 fake ESMTP",
    "EHLO": None,
    "MAIL": "250 2.1.0 OK",
    "RCPT": "250 2.1.5 OK",
    "DATA": "354 go on",
    "BODY": "250 2.0.0 OK: queued as fake1234",
    "RSET": "250 OK",
    "NOOP": "250 OK",
    "QUIT": "221 bye",
    "STARTTLS": "220 go on",
    "AUTH": "235 2.7.0 welcome",
}
_BY_BEHAVIOUR: Mapping[Behaviour, Mapping[str, str]] = {
    Behaviour.REFUSE: {"RCPT": "550 5.7.1 refused by policy"},
    Behaviour.FAIL: {"BODY": "451 4.3.0 broken"},
    Behaviour.BUSY: {"RCPT": "450 4.7.1 slower"},
    Behaviour.HANG: {"BODY": HANG},
    Behaviour.DROP: {"BODY": DROP},
    Behaviour.GARBAGE: {"BODY": "what?"},
}


class SmtpFake:
    """`replies` overrides what is said at each step; `commands` is everything that was heard."""

    def __init__(
        self, *, tls: ssl.SSLContext | None = None, implicit: bool = False, extensions: tuple[str, ...] = ()
    ) -> None:
        self.behaviour = Behaviour.TAKE
        self.replies: dict[str, str] = {}
        self.commands: list[str] = []
        self.connections = 0
        self.most_at_once = 0
        self.asked = 0
        self.delay_s = 0.0
        self.secrets: tuple[str, ...] = (SECRET, USER)
        self.outbox = Outbox()
        self.extensions = [*extensions, "AUTH PLAIN LOGIN", "SIZE 1000000", "SMTPUTF8", "8BITMIME"]
        self._tls = tls
        self._implicit = implicit
        self._at_once = 0
        self._talks: set[asyncio.Task[Any]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        tls = self._tls if self._implicit else None
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()
        for talk in tuple(self._talks):
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    def hang_up_on_everybody(self) -> None:
        """Closes the connections that are open, as a server does with idle ones."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    @property
    def taken(self) -> list[dict[str, Any]]:
        return [
            {"delivery": entry.delivery, "attempt": entry.attempt, "text": entry.text, "raw": entry.raw}
            for entry in self.outbox.entries()
        ]

    def table(self) -> Mapping[str, Any]:
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "security": "none",
            "username": USER,
            "password": SECRET,
            "from_email": "tocsin@example.com",
        }

    def wrong_credentials(self) -> Mapping[str, Any]:
        return {"password": "wrong"}

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.current_task()
        assert talk is not None
        self._talks.add(talk)
        self._writers.add(writer)
        self.connections += 1
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await self._talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._at_once -= 1
            self._talks.discard(talk)
            self._writers.discard(writer)
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._say("CONNECT", writer)
        recipients: list[str] = []
        while line := (await reader.readline()).decode("utf-8", "replace").rstrip("\r\n"):
            self.commands.append(line)
            word = line.split(" ", 1)[0].upper()
            reply = await self._say(word, writer, line)
            if word == "STARTTLS" and reply.startswith("220"):
                await writer.start_tls(self._tls)  # type: ignore[arg-type]
            elif word == "RCPT":
                self.asked += 1
                recipients.append(line.partition("<")[2].partition(">")[0])
            elif word == "DATA" and reply.startswith("354"):
                await self._body(reader, writer, recipients)
                recipients = []
            elif word == "QUIT":
                return

    async def _body(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, recipients: list[str]) -> None:
        raw = (await reader.readuntil(b"\r\n.\r\n"))[: -len(b".\r\n")].replace(b"\r\n..", b"\r\n.")
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        for address in recipients:
            keep_mail(self.outbox, address, raw)
        await self._say("BODY", writer)

    async def _say(self, step: str, writer: asyncio.StreamWriter, line: str = "") -> str:
        reply = self._reply(step, line, encrypted=writer.get_extra_info("sslcontext") is not None)
        if reply == HANG:
            await asyncio.Event().wait()
        if reply == DROP:
            raise ConnectionAbortedError
        writer.write(reply.encode() + b"\r\n")
        await writer.drain()
        return reply

    def _reply(self, step: str, line: str, *, encrypted: bool) -> str:
        if step in self.replies:
            return self.replies[step]
        if self.behaviour is Behaviour.ECHO and step == "RCPT":
            return f"550 5.7.1 {line} {' '.join(self.commands)} {SECRET} {USER}".replace("\r", "")
        told = _BY_BEHAVIOUR.get(self.behaviour, {}).get(step)
        if told:
            return told
        if step == "EHLO":
            starttls = ["STARTTLS"] if self._tls and not self._implicit and not encrypted else []
            lines = ["fake", *starttls, *self.extensions]
            return "\r\n".join([*(f"250-{said}" for said in lines[:-1]), f"250 {lines[-1]}"])
        if step == "AUTH" and not self._lets_in(line):
            return "535 5.7.8 wrong name or password"
        return _REPLIES.get(step) or "502 not here"

    def _lets_in(self, line: str) -> bool:
        given = base64.b64decode(line.rsplit(maxsplit=1)[-1]).split(b"\0")
        return given[-2:] == [USER.encode(), SECRET.encode()]


FAKE = SmtpFake
