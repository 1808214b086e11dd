"""A process that only runs actors shows its figures on a port of their own."""

import re
from pathlib import Path

import httpx
import pytest

from tests.program import Program, client, environment, eventually, posted, running
from tocsin.channels.sandbox.sandbox import Sandbox

pytestmark = [pytest.mark.servers, pytest.mark.processes, pytest.mark.timeout(120)]

PEOPLE = [
    {"id": "u1", "email": "u1@example.org", "phone": "+14155550123"},
    {"id": "u2", "email": "u2@example.org"},
]


def test_actors_alone_show_their_figures_where_they_are_told_to(
    redis_url: str, postgres_url: str, tmp_path: Path
) -> None:
    sandbox = Sandbox()
    sandbox.start()
    environ = environment(sandbox, redis_url, postgres_url, TOCSIN_METRICS__PORT="0")
    http, actors = Program(tmp_path, "http", environ=environ), Program(tmp_path, "actors", environ=environ)
    with running(http, actors):
        found = eventually(lambda: re.search(r"figures at (http://\S+)/metrics", actors.log.read_text()))
        url = found[1]
        assert eventually(lambda: httpx.get(f"{url}/health").json()) == {"status": "OK"}
        with client(http.url) as api:
            posted(api, title="Approved", recipients=PEOPLE, notificationPriority="HIGH", channels=["EMAIL", "SMS"])
        text = eventually(lambda: _counted(url))
        assert 'tocsin_breaker_open{channel="EMAIL",provider="smtp"} 0.0' in text
        assert [program.stop() for program in (actors, http)] == [0, 0]
    sandbox.stop()


def _counted(url: str) -> str:
    text = httpx.get(f"{url}/metrics").text
    assert re.search(r'tocsin_attempts_total{channel="EMAIL",provider="\w+",reason="",status="SENT"} 2.0', text)
    return text
