"""Every row of the table "When something is away" (docs/operations.md): what is answered, and what comes back.

Each fault lasts a few seconds, over one program and one mail server; what was accepted is sent once and stored.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg2
import pytest
import redis

from tests.own_servers import Servers
from tests.program import ADMIN_KEY, Program, client, environment, eventually, posted, running
from tests.served import token_of
from tests.slow_mail import SlowMail

pytestmark = [pytest.mark.servers, pytest.mark.processes, pytest.mark.timeout(150)]

QUICK_S = 4.0
"""In this time everything is answered, on a machine that has much else to do; the first calls to a server that hangs
wait for their time-out, a little over three seconds, and the others do not."""
BACK_S = 30.0
CHANNELS = ["EMAIL", "IN_APP"]
SHORT = {"TOCSIN_RETRY__BASE": "200ms", "TOCSIN_BREAKER__REST": "1s", "TOCSIN_EMAIL__SMTP__TIMEOUT": "5s"}


class Away:
    """One program with servers that fail, and what is asked of it."""

    def __init__(self, servers: Servers, mail: SlowMail, program: Program) -> None:
        self.servers, self.mail, self.program = servers, mail, program
        self.api = client(program.url)
        self._people = 0

    def post(self) -> tuple[str, str]:
        """The notification of somebody new, and its durability."""
        self._people += 1
        person = {"id": f"u{self._people}", "email": f"u{self._people}@example.org"}
        told = posted(self.api, recipients=[person], channels=CHANNELS, notificationPriority="HIGH")
        return told["notifications"][0]["id"], told["durability"]

    def asked(self, path: str, user: str | None = None, method: str = "GET") -> httpx.Response:
        token = token_of(user) if user else ADMIN_KEY
        began = time.monotonic()
        answer = self.api.request(method, path, headers={"Authorization": f"Bearer {token}"})
        assert time.monotonic() - began < 2 * QUICK_S, path
        assert answer.status_code != 503 or int(answer.headers["Retry-After"]) > 0
        return answer

    def status(self, path: str, user: str | None = None, method: str = "GET") -> int:
        return self.asked(path, user, method).status_code

    def sent(self, note: str) -> int:
        """How often the mail of a notification went out, by the mail server's own count."""
        return sum(self.mail.taken[delivery] for delivery in self.mail.notes.get(note, ()))

    def stored(self) -> dict[str, str]:
        """The status of each mail by notification, as Postgres has it."""
        connection = psycopg2.connect(self.servers.postgres_url)
        with connection, connection.cursor() as cursor:
            cursor.execute("select notification_id::text, status from deliveries where channel = 'EMAIL'")
            found: dict[str, str] = dict(cursor.fetchall())
        connection.close()
        return found

    def all_is_well(self, *notes: str) -> bool:
        """Whether each was sent once and is stored so, and the program says that it is ready."""
        assert [self.sent(note) for note in notes] == [1] * len(notes)
        assert [self.stored().get(note) for note in notes] == ["SENT"] * len(notes)
        return bool(self.api.get("/ready").json()["status"] == "READY")

    @contextmanager
    def few_words(self, most: int = 8) -> Iterator[None]:
        """What is said beside INFO, and beside requests that were slow, is not a flood."""
        before = len(self.program.log.read_text())
        yield
        said = [line for line in self.program.log.read_text()[before:].splitlines() if " INFO " not in line]
        loud = [line for line in said if " took " not in line]
        assert len(loud) <= most, "\n".join(loud)


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Away]:
    folder = tmp_path_factory.mktemp("away")
    servers = Servers(folder / "data")
    with SlowMail() as mail:
        environ = environment(None, servers.redis_url, servers.postgres_url, **SHORT, **mail.environ)
        program = Program(folder, "serve", environ=environ)
        with running(program):
            made = Away(servers, mail, program)
            yield made
            made.api.close()
            assert program.stop() == 0
    servers.stop()


@pytest.mark.parametrize("fault", ["postgres away", "postgres frozen", "postgres read-only", "postgres without-schema"])
def test_without_postgres_events_rest_in_redis_and_are_sent(away: Away, fault: str) -> None:
    earlier, _ = away.post()
    eventually(lambda: away.all_is_well(earlier))
    with away.few_words(), away.servers.fault(fault):
        notes = [note for note, durability in (away.post() for _ in range(5)) if durability == "redis"]
        assert len(notes) == 5
        eventually(lambda: [away.sent(note) for note in notes] == [1] * 5)
        user = f"u{away._people}"
        listed = [entry["id"] for entry in away.asked("/api/notifications", user).json()["data"]]
        assert listed == [notes[-1]], "what Redis has listed is shown"
        if fault != "postgres read-only":
            assert away.status("/api/events") == 503
            assert away.status(f"/api/notifications/{notes[0]}/delivery-status") == 503
            assert away.status("/api/notifications", "nobody") == 503
        assert away.api.get("/ready").json()["status"] in {"DEGRADED", "READY"}
    eventually(lambda: away.all_is_well(earlier, *notes), limit_s=BACK_S)


@pytest.mark.parametrize("fault", ["redis away", "redis frozen"])
def test_without_redis_events_rest_in_postgres_and_start_when_it_is_back(away: Away, fault: str) -> None:
    earlier, _ = away.post()
    eventually(lambda: away.all_is_well(earlier))
    user = f"u{away._people}"
    with away.few_words(), away.servers.fault(fault):
        note, durability = away.post()
        assert durability == "postgres"
        listed = [entry["id"] for entry in away.asked("/api/notifications", user).json()["data"]]
        assert listed == [earlier], "what Postgres has is shown"
        assert away.status(f"/api/notifications/{earlier}/delivery-status") == 200
        assert away.status(f"/api/notifications/{earlier}/read", user, "POST") == 503
        assert away.sent(note) == 0
    eventually(lambda: away.all_is_well(earlier, note), limit_s=BACK_S)
    assert away.status(f"/api/notifications/{earlier}/read", user, "POST") == 200


@pytest.mark.parametrize("how", ["away", "frozen"])
def test_without_both_nothing_is_taken_and_all_goes_on_by_itself(away: Away, how: str) -> None:
    with away.servers.fault(f"redis {how}"), away.servers.fault(f"postgres {how}"):
        answer = away.asked("/api/notifications", method="POST")
        event = {"type": "x.y", "message": "x", "recipients": [{"id": "u1", "email": "u1@example.org"}]}
        answer = away.api.post("/api/notifications", json=event)
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
        assert int(answer.headers["Retry-After"]) > 0
        assert away.status("/ready") == 503
        assert away.status("/health") == 200
    eventually(lambda: away.api.get("/ready").json()["status"] == "READY", limit_s=BACK_S)
    note, _ = away.post()
    eventually(lambda: away.all_is_well(note), limit_s=BACK_S)


@pytest.mark.parametrize("how", ["restarted", "killed"])
def test_a_redis_that_starts_again_with_its_file_has_lost_nothing(away: Away, how: str) -> None:
    away.mail.delay_s = 0.2
    notes = [away.post()[0] for _ in range(20)]
    if how == "restarted":
        with away.servers.away("redis"):
            pass
    else:
        assert away.servers.redis.pid is not None
        os.kill(away.servers.redis.pid, 9)
    away.mail.delay_s = 0.0
    notes += [away.post()[0] for _ in range(5)]
    eventually(lambda: away.all_is_well(*notes), limit_s=BACK_S)


def test_a_provider_that_is_away_is_waited_for(away: Away) -> None:
    with away.few_words(), away.mail.refusing():
        notes = [away.post()[0] for _ in range(5)]
        waiting = {"QUEUED", "RETRYING", "SENDING"}
        eventually(lambda: "provider_down" in str(away.asked(f"/api/notifications/{notes[0]}/delivery-status").json()))
        assert {away.stored()[note] for note in notes} <= waiting
    eventually(lambda: away.all_is_well(*notes), limit_s=BACK_S)


def test_a_redis_at_its_memory_mark_takes_nothing_new_and_goes_on(away: Away) -> None:
    earlier, _ = away.post()
    eventually(lambda: away.all_is_well(earlier))
    user = f"u{away._people}"
    operator = redis.Redis.from_url(away.servers.redis_url)
    limit: Any = operator.config_get("maxmemory")
    used: Any = operator.info("memory")
    try:
        operator.config_set("maxmemory", used["used_memory"] + 1_000)
        answer = eventually(lambda: refused(away))
        assert answer.json()["code"] == "overloaded"
        assert int(answer.headers["Retry-After"]) == 30
        assert away.status(f"/api/notifications/{earlier}/read", user, "POST") == 200
        assert away.status("/api/notifications", user) == 200
        assert away.status("/ready") == 200
    finally:
        operator.config_set("maxmemory", limit["maxmemory"])
        operator.close()
    note = eventually(lambda: away.api.get("/health") and taken(away))
    eventually(lambda: away.all_is_well(note), limit_s=BACK_S)


def refused(away: Away) -> httpx.Response | None:
    event = {"type": "x.y", "message": "x", "recipients": [{"id": "u1", "email": "u1@example.org"}]}
    answer = away.api.post("/api/notifications", json=event | {"channels": ["IN_APP"]})
    return answer if answer.status_code == 503 else None


def taken(away: Away) -> str:
    return away.post()[0]


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
