"""A Postgres whose disk is full counts as away, and is there again when there is room."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.away import BACK_S, SHORT, Away
from tests.own_servers import Servers
from tests.program import Program, environment, eventually, running
from tests.slow_mail import SlowMail

pytestmark = [pytest.mark.servers, pytest.mark.processes, pytest.mark.timeout(150)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 200 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    # Only root may mount, and not in every container; CI does without, for no honest stand-in is known.
    made = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200m,mode=755", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if not made or made.returncode != 0:
        pytest.skip("a file system of its own needs root and the right to mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_postgres_whose_disk_is_full_counts_as_away(small_disk: Path, tmp_path: Path) -> None:
    servers = Servers(tmp_path / "data", postgres_in=small_disk / "data")
    with SlowMail() as mail:
        environ = environment(None, servers.redis_url, servers.postgres_url, **SHORT, **mail.environ)
        program = Program(tmp_path, "serve", environ=environ)
        with running(program):
            full = Away(servers, mail, program)
            first, _ = full.post()
            eventually(lambda: full.all_is_well(first))
            with full.few_words(16), disk_full(small_disk):
                notes = eventually(lambda: in_redis(full), limit_s=40)
                eventually(lambda: [full.sent(note) for note in notes] == [1] * len(notes))
            eventually(lambda: full.all_is_well(first, *notes), limit_s=BACK_S)
            full.api.close()
            assert program.stop() == 0
    servers.stop()


@contextmanager
def disk_full(folder: Path) -> Iterator[None]:
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        try:
            while True:
                file.write(b"\0" * 65_536)
                file.flush()
        except OSError:
            pass
    try:
        yield
    finally:
        ballast.unlink()


def in_redis(away: Away) -> list[str]:
    """Posts until Postgres has no room left; the notifications that Redis alone had."""
    notes = []
    for _ in range(20):
        note, durability = away.post()
        if durability == "redis":
            notes.append(note)
    return notes if len(notes) == 20 else []
