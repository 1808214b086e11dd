"""A page that is open: server-sent events as they come, without a socket between."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import Message

from tests.served import Served, token_of


class Page:
    """What an open page is told."""

    def __init__(self) -> None:
        self.text = ""
        self.status = 0
        self._grown = asyncio.Condition()

    async def send(self, message: Message) -> None:
        async with self._grown:
            if message["type"] == "http.response.start":
                self.status = message["status"]
            else:
                self.text += message.get("body", b"").decode()
            self._grown.notify_all()

    def events(self) -> list[tuple[str, dict[str, Any], str | None]]:
        """(event, data, id) of each complete event."""
        found = []
        for block in self.text.split("\r\n\r\n")[:-1]:
            fields = dict(line.split(": ", 1) for line in block.split("\r\n") if not line.startswith(":"))
            if "data" in fields:
                found.append((fields["event"], json.loads(fields["data"]), fields.get("id")))
        return found

    async def told(self, enough: Callable[[list[tuple[str, dict[str, Any], str | None]]], bool]) -> Any:
        async with asyncio.timeout(10), self._grown:
            await self._grown.wait_for(lambda: enough(self.events()))
        return self.events()


@asynccontextmanager
async def opened(
    served: Served, user: str = "", *, path: str = "/api/stream", token: str | None = None, **headers: str
) -> AsyncIterator[Page]:
    """A page of `user`, or of who holds `token`, for as long as this lasts."""
    page = Page()
    gone = asyncio.Event()

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    sent = {"authorization": f"Bearer {token or token_of(user)}", **headers}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
        "client": ("127.0.0.1", 1),
        "server": ("tocsin", 80),
    }
    running = asyncio.create_task(served.app(scope, receive, page.send))
    try:
        yield page
    finally:
        gone.set()
        await asyncio.wait_for(running, 10)
