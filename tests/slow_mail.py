"""A mail server that takes its time, or never answers, and counts for itself what it was given."""

import asyncio
import threading
import time
from collections import Counter
from email import message_from_bytes
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session


class SlowMail:
    """Keeps each mail when it has all of it, and answers `delay_s` later. In a thread of its own."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.taken: Counter[str] = Counter()
        """How often each delivery came."""
        self.times: list[tuple[float, str]] = []
        """When each came, on time.time's clock."""
        self.under_way = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="slow-mail", daemon=True)

    def __enter__(self) -> "SlowMail":
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
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

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        raw: Any = envelope.content
        delivery = str(message_from_bytes(raw)["X-Tocsin-Delivery"])
        self.taken[delivery] += 1
        self.times.append((time.time(), delivery))
        self.under_way += 1
        try:
            await asyncio.sleep(self.delay_s)
        finally:
            self.under_way -= 1
        return "250 2.0.0 OK"

    async def _serve(self) -> asyncio.Server:
        return await self._loop.create_server(
            lambda: SMTP(self, hostname="slow.test", ident="slow", loop=self._loop), "127.0.0.1", 0
        )

    async def _close(self) -> None:
        self._server.close()
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await asyncio.sleep(0)
