"""Connections to a mail server that are kept and used again, at most a set number at once."""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiosmtplib import SMTP, SMTPException

from tocsin.domain.errors import SettingError

_IDLE_BEFORE_NOOP_S: Final = 2.0
_IDLE_BEFORE_CLOSE_S: Final = 60.0
_ANSWER_SHARE: Final = 0.25
"""How much of a send's time kept connections have, all together, to say that they are good; the rest is enough for a
new one."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where the mail server is and how to speak to it."""

    host: str
    port: int
    security: str
    username: str | None
    password: str | None
    ca_file: Path | None
    timeout_s: float


@dataclass(slots=True)
class Connection:
    """A connection that is logged in. `reused` says that it has been used before, so the server may have left;
    `refused` that the server may still hold the envelope of a mail that it did not take."""

    client: SMTP
    used_s: float
    reused: bool = False
    refused: bool = False

    async def alive(self, limit_s: float) -> bool:
        """Whether it may be used again; one that lay idle is asked first, and one on which a mail was refused is told
        to forget that. It has `limit_s` seconds to answer."""
        idle_s = time.monotonic() - self.used_s
        if not self.client.is_connected or idle_s > _IDLE_BEFORE_CLOSE_S:
            return False
        try:
            if self.refused:
                await self.client.rset(timeout=limit_s)
            elif idle_s >= _IDLE_BEFORE_NOOP_S:
                await self.client.noop(timeout=limit_s)
        except (SMTPException, OSError):
            return False
        self.refused = False
        return True

    def drop(self) -> None:
        """Closes it at once."""
        self.client.close()


class Pool:
    """At most `size` connections. Used from one event loop."""

    def __init__(self, server: Server, size: int) -> None:
        self._server = server
        self._free = asyncio.Semaphore(size)
        self._idle: list[Connection] = []
        self._tls = _tls_context(server) if server.security != "none" else None

    @asynccontextmanager
    async def connection(self, *, fresh: bool = False) -> AsyncIterator[Connection]:
        """A connection of one's own; kept afterwards if it is still good. Raises what aiosmtplib raises."""
        async with self._free:
            connection = await self._take(fresh=fresh)
            try:
                yield connection
            except BaseException:
                connection.drop()
                raise
            self._keep(connection)

    async def close(self) -> None:
        """Says goodbye on every idle connection, briefly."""
        idle, self._idle = self._idle, []
        await asyncio.gather(*(_leave(connection) for connection in idle), return_exceptions=True)

    async def _take(self, *, fresh: bool) -> Connection:
        answer_until_s = time.monotonic() + _ANSWER_SHARE * self._server.timeout_s
        while self._idle and not fresh:
            connection = self._idle.pop()
            try:
                alive = await connection.alive(max(0.0, answer_until_s - time.monotonic()))
            except BaseException:
                connection.drop()
                raise
            if alive:
                connection.reused = True
                return connection
            connection.drop()
        return Connection(await self._connect(), time.monotonic())

    def _keep(self, connection: Connection) -> None:
        if connection.client.is_connected:
            connection.used_s = time.monotonic()
            self._idle.append(connection)

    async def _connect(self) -> SMTP:
        server = self._server
        client = SMTP(
            hostname=server.host,
            port=server.port,
            username=server.username,
            password=server.password,
            local_hostname=_own_name(),
            timeout=server.timeout_s,
            use_tls=server.security == "tls",
            # None would send in plain text where the server does not offer STARTTLS.
            start_tls=server.security == "starttls",
            tls_context=self._tls,
        )
        try:
            await client.connect()
            if client.is_ehlo_or_helo_needed:
                await client.ehlo()
        except BaseException:
            client.close()
            raise
        return client


async def _leave(connection: Connection) -> None:
    try:
        with suppress(SMTPException, OSError):
            await connection.client.quit(timeout=1.0)
    finally:
        connection.drop()


def _tls_context(server: Server) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=server.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SettingError("email.smtp.ca_file: not a readable file of certificates (PEM)") from error


def _own_name() -> str:
    name = socket.gethostname()
    return name if name.isascii() and name.isprintable() and " " not in name and name else "localhost"
