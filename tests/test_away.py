"""Every row of the table "When something is away" (docs/operations.md): what is answered, and what comes back.

Each fault lasts a few seconds, over one program and one mail server; what was accepted is sent once and stored.
"""

import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import redis

from tests.away import BACK_S, SHORT, Away
from tests.own_servers import Servers
from tests.program import Program, environment, eventually, running
from tests.slow_mail import SlowMail

pytestmark = [pytest.mark.servers, pytest.mark.processes, pytest.mark.timeout(150)]


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Away]:
    folder = tmp_path_factory.mktemp("away")
    servers = Servers(folder / "data")
    with SlowMail() as mail:
        environ = environment(None, servers.redis_url, servers.postgres_url, **SHORT, **mail.environ)
        program = Program(folder, "serve", environ=environ)
        with running(program):
            made = Away(servers, mail, program)
            eventually(made.knows_who_is_opted_out)
            yield made
            made.api.close()
            assert program.stop() == 0
    servers.stop()


@pytest.mark.parametrize("fault", ["postgres away", "postgres frozen", "postgres read-only", "postgres without-schema"])
def test_without_postgres_events_rest_in_redis_and_are_sent(away: Away, fault: str) -> None:
    earlier, _ = away.post()
    eventually(lambda: away.all_is_well(earlier))
    with away.few_words(), away.servers.fault(fault):
        # Postgres's own processes hear a moment later of what is set.
        eventually(lambda: away.post()[1] == "redis")
        notes = [note for note, durability in (away.post() for _ in range(5)) if durability == "redis"]
        assert len(notes) == 5
        eventually(lambda: away.all_are_sent(notes))
        user = f"u{away._people}"
        listed = [entry["id"] for entry in away.asked("/api/notifications", user).json()["data"]]
        assert listed == [notes[-1]], "what Redis has listed is shown"
        if fault != "postgres read-only":
            assert away.status("/api/events") == 503
            assert away.status(f"/api/notifications/{notes[0]}/delivery-status") == 503
            assert away.status("/api/notifications", "nobody") == 503
        ready = away.api.get("/ready").json()
        assert (ready["status"], ready["parts"]["redis"]) == ("DEGRADED", "ready")
        assert ready["parts"]["postgres"] != "ready"
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
        away.asked("/api/notifications", method="POST")
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
        eventually(lambda: {away.stored().get(note) for note in notes} <= waiting)
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
