"""What the stages measure on: a Postgres and a Redis in a folder that goes with them, and processes of the program."""

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from tocsin.storage.embedded_postgres import EmbeddedPostgres
from tocsin.storage.embedded_redis import EmbeddedRedis

ADMIN_KEY: Final = "tk_admin_for_the_bench_0123456789"

PORT: Final = "<port>"
"""What stands for the port in a command that is told it."""

_LOOK_AGAIN_S: Final = 0.005
_OURS: Final = ("TOCSIN_", "REDIS_", "DATABASE_", "SMTP_", "TWILIO_", "FIREBASE_", "SENDER_", "NOTIFICATION_")


@dataclass(frozen=True, slots=True)
class Servers:
    """Where they are, and their process ids."""

    postgres_url: str
    redis_url: str
    postgres_pid: int
    redis_pid: int

    @property
    def other_redis_url(self) -> str:
        """Another database of the same Redis, for what would be taken there for a loss of ours."""
        return f"{self.redis_url}?db=1"

    def environ(self) -> dict[str, str]:
        return {"DATABASE_URL": self.postgres_url, "REDIS_URL": self.redis_url}


def stop_with_us() -> None:
    """Lets SIGTERM end this process as Ctrl-C does, so that nothing that it started outlives it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


@contextmanager
def folder() -> Iterator[Path]:
    """An empty folder for as long as this lasts. Postgres, where it may not run as root, has to pass through it."""
    with tempfile.TemporaryDirectory(prefix="tocsin-bench-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def own_servers(data: Path) -> Iterator[Servers]:
    """A Postgres and a Redis as the program runs them where none is given."""
    postgres, redis = EmbeddedPostgres(data), EmbeddedRedis(data)
    try:
        postgres_url, redis_url = postgres.start(), redis.start()
        yield Servers(postgres_url, redis_url, _pid_of(postgres), _pid_of(redis))
    finally:
        redis.stop()
        postgres.stop()


def _pid_of(server: EmbeddedPostgres | EmbeddedRedis) -> int:
    """On a busy machine a server may answer before who has started it knows its process id."""
    while (pid := server.pid) is None:
        time.sleep(_LOOK_AGAIN_S)
    return pid


class Program:
    """One process, listening on a port of its own. Its log is shown when it ends before it should."""

    def __init__(
        self, command: Sequence[str], where: Path, environ: Mapping[str, str], python: str = sys.executable
    ) -> None:
        self.port = _free_port()
        command = [str(self.port) if part == PORT else part for part in command]
        name = command[min(2, len(command) - 1)] if command[0] == "-m" else command[0]
        self.log = where / f"{Path(name).stem}-{self.port}.log"
        plain = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        ours = {"TOCSIN_ADMIN_KEY": ADMIN_KEY, "TOCSIN_DATA__DIR": str(where)}
        # A process of actors answers on its metrics port alone.
        ours["TOCSIN_METRICS__PORT" if "actors" in command else "TOCSIN_HTTP__PORT"] = str(self.port)
        self.began_s = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [python, *command], env=plain | ours | dict(environ), stdout=log, stderr=log, cwd=where
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def ready(self, path: str = "/ready", limit_s: float = 60.0) -> float:
        """Waits until `path` is answered with 200. Answers how long that took since the start, in seconds."""
        while not _answers_ok(self.port, path):
            taken_s = time.monotonic() - self.began_s
            if self.process.poll() is not None or taken_s > limit_s:
                raise RuntimeError(f"it is not ready after {taken_s:.1f} s:\n{self.log.read_text()[-4000:]}")
            time.sleep(_LOOK_AGAIN_S)
        return time.monotonic() - self.began_s

    def kill(self) -> None:
        """SIGKILL: it has no time for a last word."""
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> float:
        """SIGTERM; answers after how many seconds it had ended."""
        began_s, children = time.monotonic(), []
        if self.process.poll() is None:
            children = psutil.Process(self.pid).children(recursive=True)
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        return time.monotonic() - began_s


@contextmanager
def running(
    command: Sequence[str], where: Path, environ: Mapping[str, str], python: str = sys.executable
) -> Iterator[Program]:
    """A program that does not outlive the block."""
    program = Program(command, where, environ, python)
    try:
        yield program
    finally:
        program.stop()


@contextmanager
def ready_actors(where: Path, environ: Mapping[str, str], queues: Sequence[str] = ()) -> Iterator[Program]:
    """A process of actors that has said that it is there."""
    with running(tocsin("actors", *(("--queues", ",".join(queues)) if queues else ())), where, environ) as program:
        program.ready("/health")
        yield program


def tocsin(*arguments: str) -> list[str]:
    """The arguments to Python that run the program."""
    return ["-m", "tocsin.app", *arguments]


def processor_s(*pids: int) -> float:
    """Seconds of a core that processes and their living descendants have used."""
    used = 0.0
    for pid in pids:
        top = psutil.Process(pid)
        for process in (top, *top.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            used += times.user + times.system
    return used


def _free_port() -> int:
    """One below those that connections take for their own end, or one of those might have it by the time it is used."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _answers_ok(port: int, path: str) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode())
            return connection.recv(12) == b"HTTP/1.1 200"
    except OSError:
        return False
