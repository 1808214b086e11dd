"""A provider's server goes down and comes back, before real processes: nothing is given up, all of it goes out once."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.program import Program, client, environment, eventually, posted, running
from tests.stored import rows_of
from tocsin.channels.sandbox.sandbox import Sandbox
from tocsin.channels.sandbox.web import WebAnswer, WebRequest, WebServer

pytestmark = [pytest.mark.servers, pytest.mark.processes, pytest.mark.timeout(120)]

PEOPLE = 60
SENDS_AT_ONCE = 4
FAILURES = 5


class Door:
    """Stands before the sandbox's Twilio, and can be shut: then it answers 503."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.shut = True
        self.refused = 0
        self._server = WebServer(self._handle)
        self.url: str = sandbox._run(self._server.start())

    async def _handle(self, request: WebRequest) -> WebAnswer:
        if not self.shut:
            return await self._sandbox._twilio.handle(request)
        if request.method == "POST":
            self.refused += 1
        return WebAnswer(503, {"status": 503, "message": "Service Unavailable"})

    def close(self) -> None:
        self._sandbox._run(self._server.close())


@pytest.fixture
def door(sandbox: Sandbox) -> Iterator[Door]:
    made = Door(sandbox)
    yield made
    made.close()


def test_while_a_provider_is_away_attempts_are_kept_and_afterwards_everything_goes_out_once(
    sandbox: Sandbox, door: Door, redis_url: str, postgres_url: str, tmp_path: Path
) -> None:
    environ = environment(
        sandbox, redis_url, postgres_url,
        TOCSIN_SMS__TWILIO__CONCURRENCY=str(SENDS_AT_ONCE), TOCSIN_RETRY__BASE="50ms",
        TOCSIN_BREAKER__FAILURES=str(FAILURES), TOCSIN_BREAKER__REST="100ms", TOCSIN_BREAKER__CAP="400ms",
    )  # fmt: skip
    environ |= {
        "TOCSIN_SMS__TWILIO__BASE_URL": door.url,
        "TOCSIN_HTTP__PUBLIC_URL": f"http://127.0.0.1:{environ['TOCSIN_HTTP__PORT']}",
    }
    http = Program(tmp_path, "http", environ=environ)
    actors = [Program(tmp_path, "actors", environ=environ) for _ in range(2)]
    with running(http, *actors):
        with client(http.url) as api:
            people = [{"id": f"u{n}", "phone": f"+1415555{n:04d}"} for n in range(PEOPLE)]
            posted(api, title="Approved", recipients=people, notificationPriority="HIGH", channels=["SMS"])
            eventually(lambda: api.get("/ready").json()["channels"]["SMS"]["restingUntil"])
        eventually(lambda: said(actors, "twilio rests until") >= 6)
        door.shut = False
        eventually(lambda: statuses(postgres_url).get("SENT", 0) + statuses(postgres_url).get("DELIVERED", 0) == PEOPLE)
        assert [program.stop() for program in (*actors, http)] == [0, 0, 0]
    # Those that were under way when it opened, and the trials; what waited behind them was not tried.
    opened = said(actors, "twilio rests until")
    assert door.refused <= FAILURES + 2 * SENDS_AT_ONCE + opened
    assert attempts(postgres_url) == PEOPLE + door.refused
    assert said(actors, "twilio answers again on SMS") == 1
    sent = Counter(entry.delivery for entry in sandbox.outbox.entries())
    assert (len(sent), sent.total()) == (PEOPLE, PEOPLE)


def said(programs: list[Program], text: str) -> int:
    return sum(program.log.read_text().count(text) for program in programs)


def statuses(postgres_url: str) -> dict[str, int]:
    return dict(rows_of(postgres_url, "SELECT status, count(*)::int FROM deliveries GROUP BY status"))


def attempts(postgres_url: str) -> int:
    """How many provider calls the histories tell of."""
    counted = "SELECT count(*)::int, 0 FROM deliveries, jsonb_object_keys(history) AS key WHERE key LIKE '%:SENDING'"
    ((count, _),) = rows_of(postgres_url, counted)
    return int(count)
