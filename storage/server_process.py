"""A server of our own as a child process: started, watched, started again when it falls over, and never left behind.

Used by embedded_postgres.py and embedded_redis.py.
"""

import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final
from weakref import WeakSet

import psutil
from loguru import logger

from tocsin.domain.errors import SettingError, Unavailable

_LAUNCHER: Final = Path(__file__).with_name("launch.py")
_LOOK_AGAIN_S: Final = 0.01
_RESTART_AFTER_S: Final = 1.0
_LARGEST_LOG: Final = 10 * 1024**2
_LONGEST_SOCKET_PATH: Final = 100
"""Systems allow 103 to 107 bytes."""
_running: "Final[WeakSet[ServerProcess]]" = WeakSet()


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the system that a server runs as."""

    uid: int
    gid: int


class FolderLock:
    """Holds a folder for this process. The system lets go of it when the process ends, however it ends, so there is no
    stale lock; the file stays and names the last holder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def take(self) -> None:
        """Makes the folder if need be. Raises SettingError that names the process which holds it, or says why nothing
        can be kept there."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise SettingError(
                f"data.dir: nothing can be kept in {self._path.parent} ({error.strerror}); let this user write there, "
                "or name another folder (TOCSIN_DATA__DIR)"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 20).decode().strip() or "unknown"
            os.close(descriptor)
            raise SettingError(
                f"data.dir: {self._path.parent} is in use by another Tocsin (process {holder}); "
                "stop that one, or give this one a folder of its own (TOCSIN_DATA__DIR)"
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    def release(self) -> None:
        """Lets go, if it was taken."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class ServerProcess:
    """Runs `command` until `stop`. A thread of its own starts it and waits for it: Linux counts the *thread* that
    started a process as the parent whose death it is told of, so that thread must live as long as the server."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        log: Path,
        stop_signals: Sequence[signal.Signals],
        account: Account | None = None,
    ) -> None:
        """`stop_signals` are tried in turn, ending with SIGKILL; the first is also sent when this process dies."""
        self._name = Path(command[0]).name
        self._command = launched(command, folder=folder, death_signal=stop_signals[0], account=account)
        self._log = log
        self._log_from = 0
        self._stop_signals = (*stop_signals, signal.SIGKILL)
        self._process: subprocess.Popen[bytes] | None = None
        self._failure: BaseException | None = None
        self._guard = threading.Lock()
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name=f"keeper-of-{self._name}", daemon=True)

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._process.pid if self._process else None

    def start(self, is_ready: Callable[[], bool], *, limit_s: float) -> None:
        """Returns when `is_ready` says so. Raises Unavailable with the end of the server's log when it ends before, or
        takes longer than `limit_s`."""
        self._keeper.start()
        _running.add(self)
        limit = time.monotonic() + limit_s
        while not is_ready():
            if not self._keeper.is_alive():
                raise Unavailable(f"{self._name} did not start: {self._last_words()}") from self._failure
            if time.monotonic() > limit:
                raise Unavailable(f"{self._name} was not ready within {limit_s:g} s: {self._last_words()}")
            time.sleep(_LOOK_AGAIN_S)
        self._ready.set()

    def stop(self, *, limit_s: float) -> None:
        """Returns when the server has ended; each signal but the last is given `limit_s`."""
        with self._guard:
            self._stopping.set()
        for stop_signal in self._stop_signals:
            if not self._keeper.is_alive():
                return
            if self._process is not None:
                self._process.send_signal(stop_signal)
            self._keeper.join(limit_s)
        self._keeper.join()

    def end(self, limit_s: float) -> None:
        """Ends the server the short way: its last signal but SIGKILL, and that one after `limit_s`. Takes no lock, for
        it may be called where `stop` was interrupted."""
        self._stopping.set()
        for stop_signal in self._stop_signals[-2:]:
            if self._process is None or not self._keeper.is_alive():
                return
            self._process.send_signal(stop_signal)
            self._keeper.join(limit_s)

    def _keep(self) -> None:
        try:
            while self._spawn() and not self._stopping.is_set() and self._ready.is_set():
                logger.error("{} has ended by itself and is started again: {}", self._name, self._last_words())
                self._stopping.wait(_RESTART_AFTER_S)
        except OSError as error:
            self._failure = error

    def _spawn(self) -> bool:
        """Runs the server to its end, unless it is to stop."""
        with self._guard:
            if self._stopping.is_set():
                return False
            with self._open_log() as log:
                # A session of its own keeps a terminal's Ctrl-C from reaching the server before we have finished.
                self._process = subprocess.Popen(  # noqa: S603  # the program and its arguments are ours
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        self._process.wait()
        return True

    def _open_log(self) -> BinaryIO:
        keep = self._log.exists() and self._log.stat().st_size < _LARGEST_LOG
        log = self._log.open("ab" if keep else "wb")
        self._log_from = log.tell()
        return log

    def _last_words(self) -> str:
        """The end of what the server has written since it was last started."""
        said = self._log.read_bytes()[self._log_from :].decode("utf-8", "replace") if self._log.exists() else ""
        return " | ".join(line.strip() for line in said.splitlines()[-4:]) or "it said nothing"


def end_all(limit_s: float) -> None:
    """Ends every server that this process runs, for it ends at once itself."""
    enders = [threading.Thread(target=server.end, args=(limit_s,), daemon=True) for server in list(_running)]
    for ender in enders:
        ender.start()
    for ender in enders:
        ender.join(2 * limit_s)


def launched(
    command: Sequence[str], *, folder: Path, death_signal: signal.Signals, account: Account | None
) -> list[str]:
    """The command line that runs `command` through launch.py, as `account`."""
    uid, gid = (str(account.uid), str(account.gid)) if account else ("-", "-")
    launcher = [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), str(int(death_signal)), uid, gid]
    return [*launcher, str(folder), *command]


def refuse_anothers(folder: Path) -> None:
    """Raises SettingError when `folder` was made by another user, whose files ours could not read. Root can."""
    if folder.exists() and os.geteuid() not in (0, folder.stat().st_uid):
        raise SettingError(
            f"data.dir: {folder} belongs to another user (uid {folder.stat().st_uid}); start Tocsin as that one, "
            "or give it a folder of its own (TOCSIN_DATA__DIR)"
        )


def stop_orphan(pid: int | None, folder: Path, stop_signals: Sequence[signal.Signals], *, limit_s: float) -> None:
    """Ends a server that an earlier process of ours left behind: process `pid`, if its command line names `folder`.
    Called under the folder's lock."""
    try:
        orphan = psutil.Process(pid) if pid else None
        if orphan is None or str(folder) not in " ".join(orphan.cmdline()):
            return
        logger.warning("an earlier process left {} behind (process {}); it is stopped first", orphan.name(), pid)
        for stop_signal in (*stop_signals, signal.SIGKILL):
            orphan.send_signal(stop_signal)
            limit = time.monotonic() + limit_s
            while not ended(orphan) and time.monotonic() < limit:
                time.sleep(_LOOK_AGAIN_S)
    except psutil.NoSuchProcess:
        return


def ended(process: psutil.Process) -> bool:
    """Whether a process is no more, or only waits for its parent to take note, as some parents never do."""
    try:
        return not process.is_running() or bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def socket_folder(folder: Path, socket_name: str) -> Path:
    """Where a Unix socket of a server in `folder` goes: there, or, where the path would be too long for a socket, in a
    folder under /tmp that only this user may enter, always the same for the same `folder`."""
    if len(os.fsencode(folder / socket_name)) <= _LONGEST_SOCKET_PATH:
        return folder
    mark = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    short = Path(tempfile.gettempdir()) / f"tocsin-{mark}"
    short.mkdir(mode=0o700, exist_ok=True)
    if short.is_symlink():
        raise SettingError(f"{short} is a link, which somebody else may have laid; remove it")
    return short
