"""A mail server that speaks just enough SMTP, takes and refuses as its mood is, and notes what it took."""

import asyncio
import secrets
from contextlib import suppress
from email.parser import BytesHeaderParser

from tests.torture import moods
from tests.torture.ledger import Call, Ledger, now_ms
from tests.torture.moods import Mood

_REPLIES = {"MAIL": "250 2.1.0 OK", "RCPT": "250 2.1.5 OK", "RSET": "250 2.0.0 OK", "NOOP": "250 2.0.0 OK"}


class Mail:
    """Started and shut on one port."""

    def __init__(self, ledger: Ledger, mood: Mood) -> None:
        self.mood = mood
        self._ledger = ledger
        self._port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._talks: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """The port, which stays the same for life."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port, limit=2**20)
        self._port = self._server.sockets[0].getsockname()[1]
        return self._port

    async def shut(self) -> None:
        """Nobody can connect, and who was connected is not any more."""
        self._server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()
        for talk in tuple(self._talks):
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.current_task()
        assert talk is not None
        self._talks.add(talk)
        self._writers.add(writer)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
                await self._talk(reader, writer)
        finally:
            self._talks.discard(talk)
            self._writers.discard(writer)
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 torture ESMTP\r\n")
        to = ""
        while line := (await reader.readline()).decode("latin-1").strip():
            word = line[:4].upper()
            if word == "RCPT":
                to = line.partition("<")[2].partition(">")[0]
            if word == "EHLO":
                reply = "250-torture\r\n250-SIZE 10000000\r\n250 8BITMIME"
            elif word == "DATA":
                writer.write(b"354 go on\r\n")
                answer = await self._take(await reader.readuntil(b"\r\n.\r\n"), to)
                if answer is None:
                    return
                reply = answer
            else:
                reply = _REPLIES.get(word, "221 2.0.0 bye" if word == "QUIT" else "502 5.5.1 unknown")
            writer.write(f"{reply}\r\n".encode())
            await writer.drain()

    async def _take(self, raw: bytes, to: str) -> str | None:
        """The answer to a whole mail; None hangs up."""
        call = self._noted(raw, to)
        what = self.mood.draw()
        if what in (moods.STALL_BEFORE, moods.DROP_BEFORE):
            await asyncio.sleep(moods.STALL_S if what == moods.STALL_BEFORE else 0)
            return None
        if what in (moods.LATER, moods.LIMITED, moods.NEVER):
            call.told = "no"
            return "550 5.7.1 refused" if what == moods.NEVER else "451 4.3.0 later"
        call.accepted_ms, call.provider_id = now_ms(), secrets.token_hex(8)
        if what == moods.DROP_AFTER:
            return None
        await asyncio.sleep(moods.STALL_S if what == moods.STALL_AFTER else 0)
        call.told = "yes"
        return f"250 2.0.0 OK: queued as {call.provider_id}"

    def _noted(self, raw: bytes, to: str) -> Call:
        head = BytesHeaderParser().parsebytes(raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        delivery, attempt = str(head["X-Tocsin-Delivery"]), int(str(head["X-Tocsin-Attempt"]))
        if not str(head["Message-ID"]).startswith(f"<{delivery}@"):
            self._ledger.trouble.append(
                f"a mail of {delivery} attempt {attempt} has the Message-ID {head['Message-ID']}"
            )
        call = Call("EMAIL", delivery, attempt, to, now_ms())
        self._ledger.calls.append(call)
        return call
