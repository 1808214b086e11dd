"""A small HTTP/1.1 server for the sandbox's Twilio and FCM. Unlike a real one it can also hang up without an answer."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl

_LARGEST_HEAD: Final = 64 * 1024
_LARGEST_BODY: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class WebRequest:
    """A request as it came. Header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def form(self) -> dict[str, str]:
        """The body's fields; of repeated ones the last."""
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))

    def json(self) -> Any:
        """The body. Raises ValueError if it is no JSON."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class WebAnswer:
    """An answer with a JSON body."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)

    def encoded(self) -> bytes:
        """The answer as it goes over the wire."""
        body = json.dumps(self.body).encode()
        head = {"Content-Type": "application/json", "Content-Length": str(len(body)), **self.headers}
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}", *(f"{k}: {v}" for k, v in head.items())]
        return "\r\n".join([*lines, "", ""]).encode() + body


class HangUp(Exception):
    """Raised by a handler: the connection is to be closed without an answer."""


Handler = Callable[[WebRequest], Awaitable[WebAnswer]]


class WebServer:
    """Answers with `handler`, on a free port of the loopback address."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._talks: set[asyncio.Task[Any]] = set()

    async def start(self) -> str:
        """Returns the URL that it listens at."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=_LARGEST_HEAD)
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://{host}:{port}"

    async def close(self) -> None:
        """Stops listening and hangs up on whoever is connected."""
        self._server.close()
        for talk in tuple(self._talks):
            talk.cancel()
        await asyncio.gather(*self._talks)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.current_task()
        assert talk is not None  # noqa: S101  # asyncio makes a task of this
        self._talks.add(talk)
        try:
            while (request := await _read(reader)) is not None:
                writer.write((await self._handler(request)).encoded())
                await writer.drain()
        except (HangUp, OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        except asyncio.CancelledError:
            # Only `close` cancels; passed on, asyncio's streams of Python 3.11 would log it as an error.
            pass
        finally:
            self._talks.discard(talk)
            writer.transport.abort()


async def _read(reader: asyncio.StreamReader) -> WebRequest | None:
    """The next request; None when the other side has closed."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            return None
        raise
    first, *lines = head.split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name
    }
    size = int(headers.get("content-length", "0"))
    if not 0 <= size <= _LARGEST_BODY:
        raise ValueError("the body is too large")
    return WebRequest(method, path, headers, await reader.readexactly(size))
