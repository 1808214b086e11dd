"""A process that is told to stop does so within its time, whatever hangs, and nothing is lost or doubled (R5)."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import psycopg2
import pytest

from tests.own_servers import Servers
from tests.program import Program, client, environment, eventually, posted, running
from tests.served import token_of
from tests.slow_mail import SlowMail
from tocsin.storage.server_process import ended

pytestmark = [pytest.mark.servers, pytest.mark.processes, pytest.mark.timeout(120)]

HTTP_S, ACTORS_S = 1, 3
SLACK_S = 5.0
"""What the program allows itself beside its set times before it ends itself."""

SHORT = {
    "TOCSIN_HTTP__SHUTDOWN": f"{HTTP_S}s",
    "TOCSIN_ACTORS__SHUTDOWN": f"{ACTORS_S}s",
    "TOCSIN_ACTORS__LEASE": "5s",
    "TOCSIN_EMAIL__SMTP__TIMEOUT": "2s",
    "TOCSIN_EMAIL__SMTP__CONNECTIONS": "100",
    "TOCSIN_SMS__TWILIO__TIMEOUT": "2s",
    "TOCSIN_PUSH__FCM__TIMEOUT": "2s",
}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    made = Servers(tmp_path_factory.mktemp("servers"))
    yield made
    made.stop()


@pytest.fixture
def mail() -> Iterator[SlowMail]:
    with SlowMail() as server:
        yield server


def post_mails(api: httpx.Client, count: int) -> None:
    everybody = [{"id": f"u{number}", "email": f"u{number}@example.org"} for number in range(count)]
    posted(api, recipients=everybody, channels=["EMAIL"], notificationPriority="HIGH")


def statuses(postgres_url: str) -> dict[str, str]:
    connection = psycopg2.connect(postgres_url)
    with connection, connection.cursor() as cursor:
        cursor.execute("select id::text, status from deliveries")
        found: dict[str, str] = dict(cursor.fetchall())
    connection.close()
    return found


def family(program: Program) -> list[psutil.Process]:
    """The process and everything that it has started."""
    assert program.process is not None
    itself = psutil.Process(program.process.pid)
    return [itself, *itself.children(recursive=True)]


def stopped_in_s(program: Program, number: int = signal.SIGTERM) -> float:
    """How long it takes to end, with exit status 0."""
    began = time.monotonic()
    program.signal(number)
    status = program.wait(HTTP_S + ACTORS_S + SLACK_S + 20)
    took_s = time.monotonic() - began
    assert status == 0, program.log.read_text()[-3000:]
    assert "Traceback" not in program.log.read_text()
    return took_s


def test_sigterm_under_load_finishes_what_is_sent_and_leaves_the_rest_to_others(
    redis_url: str, postgres_url: str, mail: SlowMail, tmp_path: Path
) -> None:
    mail.delay_s = 1.0
    environ = environment(None, redis_url, postgres_url, **SHORT, **mail.environ)
    first = Program(tmp_path, "serve", environ=environ)
    with running(first):
        with client(first.url) as api:
            post_mails(api, 600)
            eventually(lambda: mail.under_way == 100)
        assert stopped_in_s(first) <= HTTP_S + ACTORS_S + 1
    assert mail.under_way == 0
    mail.delay_s = 0
    found = statuses(postgres_url)
    sent = {delivery for delivery, status in found.items() if status == "SENT"}
    assert sent == set(mail.taken)
    assert set(found.values()) == {"SENT", "QUEUED"}, "the load lasted, and nothing is uncertain"
    second = Program(tmp_path, "actors", environ=environ)
    with running(second):
        eventually(lambda: set(statuses(postgres_url).values()) == {"SENT"}, limit_s=30)
        assert second.stop() == 0
    assert len(mail.taken) == 600
    assert set(mail.taken.values()) == {1}


def test_a_send_that_stalls_at_the_limit_is_left_to_its_lease_and_shows_as_uncertain(
    redis_url: str, postgres_url: str, mail: SlowMail, tmp_path: Path
) -> None:
    mail.delay_s = 60.0
    given = SHORT | {"TOCSIN_EMAIL__SMTP__TIMEOUT": "4s", "TOCSIN_ACTORS__LEASE": "7s"}
    given["TOCSIN_EMAIL__ON_UNCERTAIN"] = "hold"
    environ = environment(None, redis_url, postgres_url, **given, **mail.environ)
    http = Program(tmp_path, "http", environ=environ)
    stalled, heir = Program(tmp_path, "actors", environ=environ), Program(tmp_path, "actors", environ=environ)
    with running(http, stalled):
        with client(http.url) as api:
            post_mails(api, 3)
        eventually(lambda: mail.under_way == 3)
        assert stopped_in_s(stalled) <= ACTORS_S + 2
        assert set(statuses(postgres_url).values()) == {"SENDING"}
        with running(heir):
            eventually(lambda: set(statuses(postgres_url).values()) == {"UNCERTAIN"}, limit_s=15)
    assert set(mail.taken.values()) == {1}


@pytest.mark.parametrize("name", ["redis", "postgres"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_hangs_does_not_hold_up_the_end(
    name: str, number: int, servers: Servers, mail: SlowMail, tmp_path: Path
) -> None:
    environ = environment(None, servers.redis_url, servers.postgres_url, **SHORT, **mail.environ)
    program = Program(tmp_path, "serve", environ=environ)
    with running(program), client(program.url) as api, open_stream(program.url), ThreadPoolExecutor() as threads:
        post_mails(api, 20)
        with servers.frozen(name):
            under_way = [threads.submit(ask, program.url, path) for path in ("/api/events", "/ready", "/metrics")]
            eventually(lambda: all(asking.running() for asking in under_way))
            assert stopped_in_s(program, number) <= HTTP_S + ACTORS_S + SLACK_S


def ask(url: str, path: str) -> None:
    """A request of which no answer need come."""
    with client(url) as api, suppress(httpx.TransportError):
        api.get(path)


@contextmanager
def open_stream(url: str) -> Iterator[None]:
    """An open page of a user."""
    headers = {"Authorization": f"Bearer {token_of('u1')}"}
    with httpx.stream("GET", f"{url}/api/stream", headers=headers, timeout=30) as answer:
        assert answer.status_code == 200
        next(answer.iter_raw())
        yield


def test_a_long_journal_is_left_to_others_when_time_is_up(
    redis_url: str, postgres_url: str, mail: SlowMail, tmp_path: Path
) -> None:
    environ = environment(None, redis_url, postgres_url, **SHORT, **mail.environ)
    first, second = Program(tmp_path, "serve", environ=environ), Program(tmp_path, "actors", environ=environ)
    blocking = psycopg2.connect(postgres_url)
    with running(first), blocking, blocking.cursor() as cursor:
        # Whoever stores something waits, as long as a slow disk may make it wait.
        cursor.execute("lock table deliveries in access exclusive mode")
        with client(first.url) as api:
            post_mails(api, 300)
        eventually(lambda: len(mail.taken) == 300)
        assert stopped_in_s(first) <= HTTP_S + ACTORS_S + 2
    blocking.close()
    with running(second):
        eventually(lambda: list(statuses(postgres_url).values()) == ["SENT"] * 300, limit_s=30)
    assert set(mail.taken.values()) == {1}


@pytest.mark.parametrize("second", [False, True])
def test_nothing_is_left_running(second: bool, mail: SlowMail, tmp_path: Path) -> None:
    mail.delay_s = 60.0
    given = environment(None, "", "", **SHORT, **mail.environ)
    environ = given | {"TOCSIN_DATA__DIR": str(tmp_path / "data")}
    program = Program(tmp_path, "serve", environ=environ)
    with running(program):
        everything = family(program)
        assert {"postgres", "redis-server"} <= {process.name() for process in everything}
        with client(program.url) as api, open_stream(program.url):
            post_mails(api, 5)
            eventually(lambda: mail.under_way == 5)
            program.signal(signal.SIGTERM)
            eventually(lambda: "stopping" in program.log.read_text())
            if second:
                program.signal(signal.SIGINT)
                assert program.wait(5) == 1
            else:
                assert program.wait(HTTP_S + ACTORS_S + SLACK_S) == 0
        assert [process for process in everything if not ended(process)] == []


def test_a_signal_while_the_servers_start_ends_them_too(tmp_path: Path) -> None:
    environ = {"TOCSIN_DATA__DIR": str(tmp_path / "data"), "TOCSIN_HTTP__PORT": "0"}
    program = Program(tmp_path, "serve", environ=environ).start()
    eventually((tmp_path / "data" / "postgres" / "postmaster.pid").exists)
    everything = family(program)
    program.signal(signal.SIGINT)
    assert program.wait(20) == 0
    assert "Traceback" not in program.log.read_text()
    assert [process for process in everything if not ended(process)] == []


INTERRUPTED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
sys.argv = ["tocsin", "serve"]
import tocsin.app
"""


@pytest.mark.parametrize("module", ["loguru", "uvicorn", "dramatiq"])
def test_a_ctrl_c_while_the_program_is_read_says_nothing(module: str) -> None:
    program = subprocess.run(
        [sys.executable, "-c", INTERRUPTED.format(module=module)], capture_output=True, text=True, check=False
    )
    assert (program.returncode, program.stderr) == (-signal.SIGINT, "")
