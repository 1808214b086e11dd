"""Real processes of the program, for tests that start, kill and ask them."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests import nursery
from tocsin.channels.sandbox.sandbox import Sandbox

ADMIN_KEY = "tk_admin_for_tests_only_0123456789"
JWT_SECRET = "only-for-tests-only-for-tests-only-for-tests"

Value = TypeVar("Value")

_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.2

# One for all looks: a client of its own for each would spend its time reading certificates that nobody needs.
_looking = httpx.Client(timeout=2, trust_env=False)


def eventually(look: Callable[[], Value], limit_s: float = 30.0, every_s: float | None = None) -> Value:
    """What `look` answers once it is true. An assertion that fails inside counts as not yet. Unless it is told how
    often, it looks less and less often: a look may take as much of the machine as what is waited for."""
    deadline, pause_s = time.monotonic() + limit_s, every_s or _SHORTEST_PAUSE_S
    while True:
        try:
            if value := look():
                return value
            trouble: BaseException | None = None
        except (AssertionError, httpx.TransportError) as error:
            trouble = error
        if time.monotonic() > deadline:
            raise AssertionError(f"it did not come about within {limit_s} s") from trouble
        time.sleep(pause_s)
        pause_s = every_s or min(_LONGEST_PAUSE_S, 1.2 * pause_s)


def free_port() -> int:
    """A port that nobody listens on now, and that no connection will be given: those are from 32768 up."""

    while True:
        port = random.SystemRandom().randrange(20_000, 32_768)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Program:
    """One process of Tocsin; its log is kept beside its data and shown when it does not start. Unless it is to be
    started `afresh`, it is a fork of one that has read the program (nursery.py). `dies`: where it kills itself, and the
    how many-th time it is there (crashing.py)."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        environ: Mapping[str, str],
        afresh: bool = False,
        dies: tuple[str, int] | None = None,
    ) -> None:
        self.arguments = arguments
        self.environ = dict(environ)
        self.log = folder / f"{'-'.join(arguments[:1])}-{os.urandom(3).hex()}.log"
        self.url = f"http://127.0.0.1:{self.environ.get('TOCSIN_HTTP__PORT', '0')}"
        self.process: subprocess.Popen[bytes] | nursery.Child | None = None
        self._afresh = afresh
        self._dies = dies

    def start(self) -> "Program":
        """Starts it; does not wait until it is ready."""
        if not self._afresh:
            environ = {**_plain_environ(), **self.environ}
            self.log.touch()
            self.process = nursery.fork([*self.arguments], environ, self.log, self._dies)
            return self
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tocsin.app", *self.arguments],
                env={**_plain_environ(), **self.environ},
                stdout=log,
                stderr=log,
                cwd=self.log.parent,
            )
        return self

    def ready(self, limit_s: float = 60.0) -> "Program":
        """Waits until it says so: /ready for one that answers HTTP, its log for the others."""

        def look() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                raise RuntimeError(f"it ended with {self.process.returncode}:\n{self.log.read_text()[-5000:]}")
            if self.arguments[0] == "actors":
                return "ready" in self.log.read_text()
            return _looking.get(f"{self.url}/ready").status_code == 200

        eventually(look, limit_s)
        return self

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9."""
        self.signal(signal.SIGKILL)
        self.wait(5)

    def wait(self, limit_s: float) -> int:
        assert self.process is not None
        return self.process.wait(limit_s)

    def stop(self, limit_s: float = 30.0) -> int:
        """SIGTERM, and its exit status."""
        if self.process is None or self.process.poll() is not None:
            return 0
        self.signal(signal.SIGTERM)
        return self.wait(limit_s)


@contextmanager
def running(*programs: Program) -> Iterator[None]:
    """Programs that are started together and do not outlive the block."""
    for program in programs:
        program.start()
    try:
        for program in programs:
            program.ready()
        yield
    finally:
        for program in programs:
            if program.process and program.process.poll() is None:
                program.process.kill()
                program.process.wait(5)


def environment(sandbox: Sandbox | None, redis_url: str, postgres_url: str, **more: str) -> dict[str, str]:
    """The environment of a program on given servers, its providers being the sandbox's."""
    given = {
        "REDIS_URL": redis_url,
        "DATABASE_URL": postgres_url,
        "TOCSIN_ADMIN_KEY": ADMIN_KEY,
        "TOCSIN_AUTH__JWT_SECRET": JWT_SECRET,
        "TOCSIN_HTTP__PORT": str(free_port()),
        "TOCSIN_LOG__FORMAT": "text",
    }
    for section, table in (sandbox.settings_overrides() if sandbox else {}).items():
        prefix = "TOCSIN_" + section.upper().replace(".", "__")
        given |= {f"{prefix}__{name.upper()}": str(value) for name, value in table.items()}
    return given | more


def client(url: str, **headers: str) -> httpx.Client:
    """A client with the admin key."""
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {ADMIN_KEY}", **headers}, timeout=15)


def posted(api: httpx.Client, **event: Any) -> dict[str, Any]:
    """Posts an event and answers what was answered."""
    answer = api.post("/api/notifications", json={"type": "event.approval", "message": "It is approved", **event})
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.json()
    return body


def _plain_environ() -> dict[str, str]:
    """This process's environment without settings that were meant for something else."""
    meant_for_us = ("TOCSIN_", "REDIS_", "DATABASE_", "SMTP_", "TWILIO_", "FIREBASE_", "SENDER_", "NOTIFICATION_")
    return {name: value for name, value in os.environ.items() if not name.startswith(meant_for_us)}
