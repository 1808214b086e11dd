"""How commands speak with a server: what they send, what they try again, and where no key goes."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from tests.program import free_port
from tocsin.cli.cancel import cancel
from tocsin.cli.options import find_server
from tocsin.cli.server import NoAnswer, Refused, Server

PROBLEM = {"title": "A value is not valid.", "detail": "It is blank.", "code": "too_short", "field": "/message"}


class Scripted(ThreadingHTTPServer):
    """Gives the answers that a test put there, one a request, and keeps what was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, Any]] = []
        self.asked: list[tuple[str, str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Scripted

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append((self.command, self.path, headers))
        status, body = self.server.answers.pop(0)
        payload = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        if status == 503:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(payload)

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815  # names of the base class

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    with Scripted() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def test_a_request_carries_the_key_as_a_bearer_token(scripted: Scripted) -> None:
    scripted.answers = [(200, {"data": []})]
    async with Server(scripted.url, "tk_1") as server:
        assert await server.get("/api/events", limit=1, cursor=None) == {"data": []}
    ((method, path, headers),) = scripted.asked
    assert (method, path, headers["authorization"]) == ("GET", "/api/events?limit=1", "Bearer tk_1")


@pytest.mark.parametrize("status", [404, 503])
def test_what_is_stopped_is_said_to_be_so_though_nobody_can_see_how_far_it_is(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr("tocsin.cli.cancel._LOOK_AGAIN_S", 0.0)
    asked = {"id": "c1", "status": "RUNNING", "eventCount": 0, "cancelledCount": 0, "reason": "wrong date"}
    scripted.answers = [(200, asked), *[(status, {"title": "Away.", "code": "away"})] * 3]
    told = CliRunner().invoke(cancel, ["--type", "event.reminder", "--url", scripted.url, "--key", "tk_1"])
    assert told.exit_code == 0, told.output
    assert "It is stopped; how far its deliveries are cannot be seen now. Away. (away)" in " ".join(told.output.split())
    assert "ask again with GET /api/cancellations/c1" in " ".join(told.output.split())


async def test_who_is_not_known_is_named_in_what_is_said_of_a_refusal(scripted: Scripted) -> None:
    scripted.answers = [(422, {"title": "Nobody is left.", "code": "no_recipients", "unknownIds": ["ann", "bob"]})]
    async with Server(scripted.url, "tk_1") as server:
        with pytest.raises(Refused, match=r"Not known: ann, bob\. \(no_recipients\)"):
            await server.post("/api/notifications", {"type": "test"})


async def test_a_post_that_met_a_503_is_repeated_under_the_same_idempotency_key(scripted: Scripted) -> None:
    scripted.answers = [(503, {}), (202, {"id": "1"})]
    async with Server(scripted.url, "tk_1") as server:
        assert await server.post("/api/notifications", {"type": "test"}) == {"id": "1"}
    first, second = (headers["idempotency-key"] for _, _, headers in scripted.asked)
    assert first == second


async def test_a_503_that_stays_is_told_after_the_third_try(scripted: Scripted) -> None:
    scripted.answers = [(503, {"title": "Redis does not answer.", "code": "redis_away"})] * 3
    async with Server(scripted.url, "tk_1") as server:
        with pytest.raises(Refused, match="redis_away"):
            await server.get("/api/events")


async def test_a_problem_is_told_with_its_field_and_its_mend(scripted: Scripted) -> None:
    scripted.answers = [(422, PROBLEM | {"mend": "Give it some content."})]
    async with Server(scripted.url, "tk_1") as server:
        with pytest.raises(Refused) as refused:
            await server.post("/api/notifications", {})
    assert str(refused.value) == "/message: It is blank. Give it some content. (too_short)"
    assert (refused.value.status, refused.value.code) == (422, "too_short")


@pytest.mark.parametrize("status", [200, 404, 500])
async def test_something_else_than_tocsin_is_refused_and_not_a_crash(scripted: Scripted, status: int) -> None:
    scripted.answers = [(status, "<html>hello")]
    async with Server(scripted.url, None) as server:
        with pytest.raises(Refused):
            await server.get("/")


async def test_where_no_server_answers_the_mend_is_named() -> None:
    async with Server(f"http://127.0.0.1:{free_port()}", "tk_1") as server:
        with pytest.raises(NoAnswer, match="tocsin serve"):
            await server.get("/api/events")


async def test_what_is_no_address_is_wrong_use() -> None:
    async with Server("localhost:8000", "tk_1") as server:
        with pytest.raises(click.UsageError):
            await server.get("/api/events")


async def test_a_list_is_read_page_after_page(scripted: Scripted) -> None:
    scripted.answers = [
        (200, {"data": [{"n": 1}, {"n": 2}], "nextCursor": "two"}),
        (200, {"data": [{"n": 3}, {"n": 4}], "nextCursor": "four"}),
    ]
    async with Server(scripted.url, "tk_1") as server:
        assert [row["n"] async for row in server.pages("/api/events", 3)] == [1, 2, 3]
    assert [path for _, path, _ in scripted.asked] == ["/api/events?limit=3", "/api/events?limit=1&cursor=two"]


@pytest.fixture
def kept_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The key that a server made here and keeps in its data folder."""
    monkeypatch.setenv("TOCSIN_DATA__DIR", str(tmp_path))
    monkeypatch.delenv("TOCSIN_ADMIN_KEY", raising=False)
    (tmp_path / "admin_key").write_text("tk_admin_kept_here\n")
    return "tk_admin_kept_here"


def test_the_key_that_a_server_here_made_is_found(kept_key: str) -> None:
    assert find_server(None, None).token == kept_key
    assert find_server("http://localhost:9999", None).token == kept_key


def test_the_key_of_this_machine_is_not_shown_to_another(kept_key: str) -> None:
    assert find_server("https://tell.example.org", None).token is None
    assert find_server("https://localhost.example.org", None).token is None


def test_a_key_that_is_given_wins(kept_key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOCSIN_ADMIN_KEY", "tk_of_the_settings")
    assert find_server(None, None).token == "tk_of_the_settings"
    assert find_server(None, "tk_given").token == "tk_given"


def test_a_server_that_listens_everywhere_is_asked_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOCSIN_HTTP__HOST", "0.0.0.0")
    monkeypatch.setenv("TOCSIN_HTTP__PORT", "9000")
    assert find_server(None, None).url == "http://127.0.0.1:9000"


def test_wrong_settings_here_do_not_keep_from_a_server_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOCSIN_HTTP__PORT", "no port")
    assert find_server("https://tell.example.org", None).url == "https://tell.example.org"
