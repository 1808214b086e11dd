"""Stopping while a server hangs, and with servers of one's own: nothing holds up the end, nothing is left over (R5)."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.own_servers import Servers
from tests.program import Program, client, environment, eventually, posted, running
from tests.served import token_of
from tests.slow_mail import SlowMail
from tests.stopping import ACTORS_S, HTTP_S, SHORT, SLACK_S, post_mails, stopped_in_s
from tocsin.storage.server_process import ended

pytestmark = [pytest.mark.servers, pytest.mark.processes, pytest.mark.timeout(120)]

WHO = {"id": "u1", "email": "u1@example.org"}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    made = Servers(tmp_path_factory.mktemp("servers"))
    yield made
    made.stop()


def family(program: Program) -> list[psutil.Process]:
    """The process and everything that it has started."""
    assert program.process is not None
    itself = psutil.Process(program.process.pid)
    return [itself, *itself.children(recursive=True)]


@pytest.mark.parametrize(("name", "number"), [("redis", signal.SIGTERM), ("postgres", signal.SIGINT)])
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


def test_requests_that_wait_for_servers_do_not_hold_up_the_end(servers: Servers, tmp_path: Path) -> None:
    program = Program(tmp_path, "http", environ=environment(None, servers.redis_url, servers.postgres_url, **SHORT))
    with running(program), ThreadPoolExecutor(12) as threads, ExitStack() as faults:
        with client(program.url) as api:
            told = posted(api, recipients=[WHO], channels=["IN_APP"])["notifications"][0]["id"]
        for name in ("redis", "postgres"):
            faults.enter_context(servers.frozen(name))
        post = {"type": "event.approval", "message": "It is approved", "recipients": [WHO]}
        asked = [
            threads.submit(ask, program.url, path, method, body)
            for path, method, body in (
                ("/api/notifications", "POST", post),
                ("/api/users/u1/preferences", "PUT", {"email": True}),
                (f"/api/notifications/{told}/delivery-status", "GET", None),
            )
            for _ in range(4)
        ]
        eventually(lambda: all(asking.running() or asking.done() for asking in asked))
        assert stopped_in_s(program) <= HTTP_S + SLACK_S


def ask(url: str, path: str, method: str = "GET", body: dict[str, Any] | None = None) -> None:
    """A request of which no answer need come."""
    with client(url) as api, suppress(httpx.TransportError):
        api.request(method, path, json=body)


@contextmanager
def open_stream(url: str) -> Iterator[None]:
    """An open page of a user."""
    headers = {"Authorization": f"Bearer {token_of('u1')}"}
    with httpx.stream("GET", f"{url}/api/stream", headers=headers, timeout=30) as answer:
        assert answer.status_code == 200
        next(answer.iter_raw())
        yield


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
