"""A process that only runs actors shows its figures on a port of their own."""

import asyncio
import re
from pathlib import Path

import httpx
import pytest

from tests.program import Program, client, environment, eventually, posted, running
from tocsin.actors.metrics import Gauges
from tocsin.channels.sandbox.sandbox import Sandbox
from tocsin.cli.compose import Parts, Process
from tocsin.cli.listening import address_of, listen
from tocsin.cli.stopping import Stopping
from tocsin.domain.settings import load
from tocsin.storage.postgres import Postgres

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


async def test_who_asks_for_figures_as_the_process_stops_keeps_it_from_nothing(
    redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def never(*_: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Gauges, "refresh", never)
    settings = load({}).with_values({"redis.url": redis_url, "postgres.url": postgres_url})
    process = Process(settings, Parts(http=False, queues=()), None, None, Stopping())
    postgres, listening = Postgres(settings.postgres), listen("127.0.0.1", 0)
    async with asyncio.timeout(10), httpx.AsyncClient() as client:
        async with process._figures(postgres, listening):
            asking = asyncio.create_task(client.get(f"{address_of(listening)}/metrics"))
            await asked.wait()
        assert (await asking).status_code >= 500
    await postgres.close()


def _counted(url: str) -> str:
    text = httpx.get(f"{url}/metrics").text
    assert re.search(r'tocsin_attempts_total{channel="EMAIL",provider="\w+",reason="",status="SENT"} 2.0', text)
    return text
