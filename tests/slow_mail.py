"""A mail server that takes its time, or never answers, and counts for itself what it was given."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from email import message_from_bytes
from typing import Any, TypeVar

from aiosmtpd.smtp import SMTP, Envelope, Session

Value = TypeVar("Value")


class SlowMail:
    """Keeps each mail when it has all of it, and answers `delay_s` later. In a thread of its own."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.taken: Counter[str] = Counter()
        """How often each delivery came."""
        self.notes: dict[str, set[str]] = {}
        """The deliveries of each notification."""
        self.times: list[tuple[float, str]] = []
        """When each came, on time.time's clock."""
        self.under_way = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="slow-mail", daemon=True)

    def __enter__(self) -> "SlowMail":
        self._thread.start()
        self._server = self._do(self._serve())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def environ(self) -> dict[str, str]:
        """The settings that lead here."""
        return {
            "TOCSIN_EMAIL__SMTP__HOST": "127.0.0.1",
            "TOCSIN_EMAIL__SMTP__PORT": str(self._server.sockets[0].getsockname()[1]),
            "TOCSIN_EMAIL__SMTP__SECURITY": "none",
            "TOCSIN_EMAIL__SMTP__FROM_EMAIL": "tocsin@example.org",
        }

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Lets nobody in: the port answers that nobody listens."""
        port = self._server.sockets[0].getsockname()[1]
        self._do(self._shut())
        try:
            yield
        finally:
            self._server = self._do(self._serve(port))

    def _do(self, work: Coroutine[Any, Any, Value]) -> Value:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        raw: Any = envelope.content
        mail = message_from_bytes(raw)
        delivery = str(mail["X-Tocsin-Delivery"])
        self.taken[delivery] += 1
        self.notes.setdefault(str(mail["X-Tocsin-Notification"]), set()).add(delivery)
        self.times.append((time.time(), delivery))
        self.under_way += 1
        try:
            await asyncio.sleep(self.delay_s)
        finally:
            self.under_way -= 1
        return "250 2.0.0 OK"

    async def _serve(self, port: int = 0) -> asyncio.Server:
        return await self._loop.create_server(
            lambda: SMTP(self, hostname="slow.test", ident="slow", loop=self._loop), "127.0.0.1", port
        )

    async def _shut(self) -> None:
        self._server.close()
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await asyncio.sleep(0)
