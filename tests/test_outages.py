"""What goes on while Postgres or Redis is away, and what is there afterwards (design §7)."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.many_processes import Background
from tests.own_servers import Servers
from tests.program import ADMIN_KEY, Program, client, environment, eventually, posted, running
from tests.stored import rows_of
from tocsin.channels.sandbox.sandbox import Sandbox

pytestmark = [pytest.mark.servers, pytest.mark.processes, pytest.mark.timeout(150)]

AWAY_S = 20.0
EVERY_S = 0.05


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    made = Servers(tmp_path / "data")
    yield made
    made.stop()


@pytest.fixture
def tocsin(servers: Servers, sandbox: Sandbox, tmp_path: Path) -> Iterator[Program]:
    environ = environment(sandbox, servers.redis_url, servers.postgres_url)
    program = Program(tmp_path, "serve", environ=environ)
    with running(program):
        yield program


class Load(Background):
    """Posts an event to one new person every so often; keeps what was answered."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.accepted: dict[str, str] = {}
        self.refused: list[str] = []

    def work(self) -> None:
        number = 0
        with httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {ADMIN_KEY}"}, timeout=20) as api:
            while not self._stop.wait(EVERY_S):
                number += 1
                event = {
                    "type": "event.approval",
                    "message": "Approved",
                    "recipients": [{"id": f"load{number}", "email": f"load{number}@example.org"}],
                    "channels": ["EMAIL"],
                    "notificationPriority": "HIGH",
                }
                answer = api.post("/api/notifications", json=event)
                if answer.status_code == 202:
                    self.accepted[answer.json()["notifications"][0]["id"]] = answer.json()["durability"]
                else:
                    self.refused.append(answer.text)


def stored(postgres_url: str) -> dict[str, str]:
    return dict(rows_of(postgres_url, "SELECT notification_id::text, status FROM deliveries WHERE channel = 'EMAIL'"))


def test_while_postgres_is_away_everything_accepted_is_sent_and_it_is_stored_afterwards(
    tocsin: Program, servers: Servers, sandbox: Sandbox
) -> None:
    with Load(tocsin.url) as load:
        eventually(lambda: len(sandbox.outbox.entries()) >= 5)
        servers.postgres.stop()
        back_at = time.monotonic() + AWAY_S
        eventually(lambda: time.monotonic() >= back_at, limit_s=AWAY_S + 5)
        away = {note for note, durability in load.accepted.items() if durability == "redis"}
        assert len(away) >= AWAY_S / EVERY_S / 4
        eventually(lambda: away <= {str(entry.notification) for entry in sandbox.outbox.entries()}, limit_s=40)
        servers.postgres.start()
        eventually(lambda: "postgres" in list(load.accepted.values())[-3:], limit_s=15)
    assert load.refused == []
    eventually(lambda: stored(servers.postgres_url) == dict.fromkeys(load.accepted, "SENT"), limit_s=30)
    log = tocsin.log.read_text()
    assert 1 <= log.count("waits:") <= 10, "one line a minute, not a flood"


def test_while_redis_is_away_events_are_kept_by_postgres_and_start_when_it_is_back(
    tocsin: Program, servers: Servers, sandbox: Sandbox
) -> None:
    with client(tocsin.url) as api:
        servers.redis.stop()
        answer = posted(api, recipients=[{"id": "u1", "email": "u1@example.org"}], notificationPriority="HIGH")
        assert answer["durability"] == "postgres"
        servers.redis.start()
        (note,) = [each["id"] for each in answer["notifications"]]
        eventually(lambda: note in {str(entry.notification) for entry in sandbox.outbox.entries()}, limit_s=30)
        assert len(sandbox.outbox.entries()) == 1


def test_an_opt_out_that_redis_did_not_hear_of_holds_all_the_same(
    tocsin: Program, servers: Servers, sandbox: Sandbox
) -> None:
    person = {"email": "quiet@example.org", "phone": "+14155550177"}
    with client(tocsin.url) as api:
        assert api.put("/api/users/quiet", json=person).status_code in {200, 201}
        before = posted(api, recipientIds=["quiet"], channels=["EMAIL"], notificationPriority="HIGH")
        (note,) = [each["id"] for each in before["notifications"]]
        eventually(lambda: note in {entry.notification for entry in sandbox.outbox.entries()})
        servers.redis.stop()
        api.put("/api/users/quiet/preferences", json={"email": False})
        servers.redis.start()

        def suppressed() -> bool:
            answer = posted(api, recipientIds=["quiet"], channels=["EMAIL"], notificationPriority="CRITICAL")
            (later,) = [each["id"] for each in answer["notifications"]]
            told = api.get(f"/api/notifications/{later}/delivery-status")
            assert told.status_code == 200
            return [each["reason"] for each in told.json()["deliveries"]] == ["opted_out"]

        eventually(suppressed, limit_s=30, every_s=1.0)


def test_with_both_away_nothing_is_accepted_and_it_is_said_so(tocsin: Program, servers: Servers) -> None:
    with client(tocsin.url) as api:
        servers.postgres.stop()
        servers.redis.stop()
        answer = api.post(
            "/api/notifications",
            json={"type": "event.approval", "message": "x", "recipients": [{"id": "u1", "email": "u1@example.org"}]},
        )
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.headers["content-type"] == "application/problem+json"
