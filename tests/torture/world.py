"""What a run takes place in: a Redis, a Postgres and providers of its own, two processes of HTTP, three of actors."""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import redis

from tests.program import ADMIN_KEY, JWT_SECRET, Program, free_port
from tests.torture import twilio
from tests.torture.ledger import Fault, Ledger, now_ms
from tests.torture.mail import Mail
from tests.torture.moods import Mood
from tests.torture.options import Options
from tests.torture.twilio import Twilio
from tests.torture.web import Door, Fcm
from tocsin.channels.sandbox import fcm
from tocsin.storage.embedded_postgres import EmbeddedPostgres
from tocsin.storage.embedded_redis import EmbeddedRedis
from tocsin.storage.migrate import migrate
from tocsin.storage.server_process import launched

LEASE_S = 8.0
SHUTDOWN_S = 8.0
_START_S = 200.0
"""A machine that does much else may take its time to start five processes."""
FAR_MS = 600_000
"""What is due later than that is not waited for."""

SETTINGS = """
[actors]
lease = "8s"
shutdown = "8s"
[http]
shutdown = "5s"
public_url = "http://tocsin.test"
[email.smtp]
timeout = "3s"
[sms.twilio]
timeout = "3s"
[push.fcm]
timeout = "3s"
[retry]
base = "1s"
cap = "4s"
[breaker]
rest = "2s"
cap = "5s"
[reconcile]
every = "15s"
[uncertain]
first_after = "8s"
receipt_after = "15s"
again_after = "10s"
every = "5s"
[escalation]
sms_after = "4s"
email_after = "8s"
[policies]
far = [ { channel = "IN_APP", after = "0s" }, { channel = "EMAIL", after = "2h" } ]
twice = [ { channel = "EMAIL", after = "0s" }, { channel = "EMAIL", after = "5s" } ]
[types."torture.mandatory"]
mandatory = true
"""


class Member(Program):
    """A process of the program that is started again when it has ended, and does not outlive this one."""

    def __init__(self, folder: Path, name: str, *arguments: str, environ: Mapping[str, str]) -> None:
        super().__init__(folder, *arguments, environ=environ)
        self.name = name
        self.log = folder / f"{name}.log"
        self.busy = False
        """Whether a fault has it in hand."""
        self.started_ms = 0

    def start(self, skew_s: float = 0.0) -> "Member":
        script = str(Path(__file__).with_name("skewed.py"))
        command = [sys.executable, "-P", script, str(skew_s)] if skew_s else [sys.executable, "-m", "tocsin.app"]
        command = launched(
            [*command, *self.arguments], folder=self.log.parent, death_signal=signal.SIGKILL, account=None
        )
        self.started_ms = now_ms()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env={**os.environ, **self.environ}, stdout=log, stderr=log, cwd=self.log.parent
            )
        return self

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def said(self, since: int = 0) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[since:][-1500:]


class World:
    """Everything of a run; `open` and `close` once."""

    def __init__(self, folder: Path, options: Options, ledger: Ledger) -> None:
        self.folder = folder
        self.ledger = ledger
        self.options = options
        self.redis_server = EmbeddedRedis(folder / "data")
        self.postgres_server = EmbeddedPostgres(folder / "data")
        self.moods = {name: Mood(random.Random(f"{options.seed}:{name}")) for name in ("EMAIL", "SMS", "PUSH")}
        self.ports = [free_port(), free_port()]
        self.doors = [f"http://127.0.0.1:{port}" for port in self.ports]
        self.members: list[Member] = []
        self._watching: asyncio.Task[None] | None = None
        self.margin_s = 3.0
        """What a process may take to end beyond its set time: more where starting was slow, for the machine is."""
        self.redis_busy = self.postgres_busy = False

    async def open(self) -> None:
        self.redis_url = await asyncio.to_thread(self.redis_server.start)
        self.postgres_url = await asyncio.to_thread(self.postgres_server.start)
        await asyncio.to_thread(migrate, self.postgres_url)
        self.redis = redis.Redis.from_url(self.redis_url, decode_responses=True)
        environ = await self._providers()
        self.members = [
            *(
                Member(self.folder, f"http{n}", "http", environ=environ | {"TOCSIN_HTTP__PORT": str(port)})
                for n, port in enumerate(self.ports, 1)
            ),
            Member(self.folder, "actors1", "actors", environ=environ),
            Member(self.folder, "actors2", "actors", environ=environ),
            Member(self.folder, "actors3", "actors", "--queues", "send_sms,send_email,persist", environ=environ),
        ]
        for member in self.members:
            member.start()
        began = time.monotonic()
        await asyncio.gather(*(asyncio.to_thread(member.ready, _START_S) for member in self.members))
        self.margin_s = max(3.0, (time.monotonic() - began) / 2)
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        if self._watching:
            self._watching.cancel()
        for member in self.members:
            if member.runs:
                member.signal(signal.SIGCONT)
                member.signal(signal.SIGTERM)
        for member in self.members:
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(member.wait, SHUTDOWN_S + self.margin_s)
            if member.runs:
                self.ledger.trouble.append(f"{member.name} did not end at SIGTERM")
                member.kill()
        await self.twilio.close()
        for server in (self.mail, *self._doors.values()):
            await (server.shut() if isinstance(server, Mail) else server.close())
        self.redis.close()
        await asyncio.to_thread(self.redis_server.stop)
        await asyncio.to_thread(self.postgres_server.stop)

    async def shut(self, channel: str) -> None:
        """The provider of a channel is gone."""
        await (self.mail.shut() if channel == "EMAIL" else self._doors[channel].close())

    async def reopen(self, channel: str) -> None:
        await (self.mail.start() if channel == "EMAIL" else self._doors[channel].start())

    def away(self, server: str) -> list[Fault]:
        """When a server ("redis" or "postgres") was away."""
        return [fault for fault in self.ledger.faults if fault.target == server and fault.kind != "empty_redis"]

    async def _providers(self) -> dict[str, str]:
        self.mail = Mail(self.ledger, self.moods["EMAIL"])
        chance = random.Random(f"{self.options.seed}:receipts")
        self.twilio = Twilio(self.ledger, self.moods["SMS"], chance, self.doors)
        self.fcm = Fcm(self.ledger, self.moods["PUSH"])
        self._doors = {"SMS": Door(self.twilio.handle), "PUSH": Door(self.fcm.handle)}
        settings = self.folder / "settings.toml"
        settings.write_text(SETTINGS)
        return {
            "TOCSIN_SETTINGS": str(settings),
            "TOCSIN_DATA__DIR": str(self.folder / "member-data"),
            "REDIS_URL": self.redis_url,
            "DATABASE_URL": self.postgres_url,
            "TOCSIN_ADMIN_KEY": ADMIN_KEY,
            "TOCSIN_AUTH__JWT_SECRET": JWT_SECRET,
            "TOCSIN_LOG__FORMAT": "text",
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": str(await self.mail.start()),
            "TOCSIN_EMAIL__SMTP__SECURITY": "none",
            "SENDER_EMAIL": "tocsin@torture.test",
            "TWILIO_ACCOUNT_SID": twilio.ACCOUNT,
            "TWILIO_AUTH_TOKEN": twilio.TOKEN,
            "TWILIO_PHONE_NUMBER": twilio.FROM,
            "TOCSIN_SMS__TWILIO__BASE_URL": await self._doors["SMS"].start(),
            "FIREBASE_PROJECT_ID": fcm.PROJECT,
            "FIREBASE_PRIVATE_KEY": self.fcm.server.private_key,
            "FIREBASE_CLIENT_EMAIL": fcm.CLIENT_EMAIL,
            "TOCSIN_PUSH__FCM__BASE_URL": await self._doors["PUSH"].start(),
        }

    async def _watch(self) -> None:
        """Starts again what ended, as a system's supervisor does, and notes what ended by itself."""
        while True:
            for member in self.members:
                if not member.busy and not member.runs:
                    assert member.process is not None
                    self.ledger.trouble.append(
                        f"{member.name} ended by itself with {member.process.returncode} at {now_ms()}: {member.said()}"
                    )
                    member.start()
            await asyncio.sleep(0.5)
