"""The sandbox (C8): SMTP, Twilio and FCM servers on loopback that the real SDKs send to. What came is the outbox."""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from tocsin.channels.sandbox import fcm, twilio
from tocsin.channels.sandbox.outbox import Outbox
from tocsin.channels.sandbox.smtp import serve_smtp
from tocsin.channels.sandbox.web import WebServer

T = TypeVar("T")
FROM_EMAIL: Final = "tocsin@sandbox.test"
_START_S: Final = 60.0
"""All of it is this process's own work, a key among it: a machine that is kept busy by others takes long for that."""


@dataclass(frozen=True, slots=True)
class SandboxAddresses:
    """Where the servers listen."""

    smtp_host: str
    smtp_port: int
    twilio_url: str
    fcm_url: str


class Sandbox:
    """The servers, in a thread of their own. `receipt_delay_s` lies between the statuses that Twilio tells."""

    def __init__(self, outbox: Outbox | None = None, *, receipt_delay_s: float = 0.05) -> None:
        self.outbox = outbox or Outbox()
        self.addresses: SandboxAddresses | None = None
        self._delay_s = receipt_delay_s
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sandbox", daemon=True)

    def start(self) -> SandboxAddresses:
        """Returns when all three listen, each on a free port."""
        self._thread.start()
        self.addresses = self._run(self._serve())
        return self.addresses

    def stop(self) -> None:
        """Closes everything; may be called twice."""
        if self._loop.is_closed():
            return
        if self._thread.is_alive():
            self._run(self._close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    def settings_overrides(self) -> dict[str, dict[str, Any]]:
        """The providers' tables that point at these servers, by section, as they would be written in settings.toml."""
        if self.addresses is None:
            raise RuntimeError("the sandbox has not been started")
        return {
            "email.smtp": {
                "host": self.addresses.smtp_host,
                "port": self.addresses.smtp_port,
                "security": "none",
                "username": "",
                "password": "",
                "from_email": FROM_EMAIL,
            },
            "sms.twilio": {
                "account_sid": self._twilio.account_sid,
                "auth_token": self._twilio.auth_token,
                "from_number": twilio.FROM_NUMBER,
                "base_url": self.addresses.twilio_url,
            },
            "push.fcm": {
                "project_id": fcm.PROJECT,
                "private_key": self._fcm.private_key,
                "client_email": fcm.CLIENT_EMAIL,
                "base_url": self.addresses.fcm_url,
            },
        }

    async def _serve(self) -> SandboxAddresses:
        self._twilio = twilio.TwilioServer(self.outbox, receipt_delay_s=self._delay_s)
        self._fcm = fcm.FcmServer(self.outbox)
        self._mail = await serve_smtp(self.outbox)
        self._web = [WebServer(self._twilio.handle), WebServer(self._fcm.handle)]
        host, port = self._mail.sockets[0].getsockname()[:2]
        return SandboxAddresses(host, port, *[await server.start() for server in self._web])

    async def _close(self) -> None:
        self._mail.close()
        for server in self._web:
            await server.close()
        await self._twilio.close()
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*rest, return_exceptions=True)
        # Transports close a step after what used them.
        await asyncio.sleep(0)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_START_S)
