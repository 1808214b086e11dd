"""Redis is emptied under real processes: what waited goes out once, and at a kill in the same moment nothing twice."""

from collections import Counter
from pathlib import Path

import pytest
import redis

from tests.program import Program, client, environment, eventually, posted, running
from tests.stored import rows_of
from tocsin.channels.sandbox.sandbox import Sandbox

pytestmark = [pytest.mark.servers, pytest.mark.processes, pytest.mark.timeout(240)]

WAITING = 2_000
SENDING = 300


@pytest.fixture
def environ(sandbox: Sandbox, redis_url: str, postgres_url: str) -> dict[str, str]:
    return environment(
        sandbox,
        redis_url,
        postgres_url,
        TOCSIN_ESCALATION__SMS_AFTER="12s",
        TOCSIN_ACTORS__LEASE="4s",
        TOCSIN_EMAIL__SMTP__TIMEOUT="1s",
        TOCSIN_SMS__TWILIO__TIMEOUT="1s",
        TOCSIN_PUSH__FCM__TIMEOUT="1s",
        TOCSIN_RETRY__BASE="200ms",
        TOCSIN_BREAKER__REST="1s",
        TOCSIN_BREAKER__CAP="2s",
    )


def people(count: int) -> list[dict[str, str]]:
    return [{"id": f"u{number}", "phone": f"+1415555{number:04d}"} for number in range(count)]


def statuses(postgres_url: str) -> dict[str, int]:
    return dict(rows_of(postgres_url, "select status, count(*) from deliveries where channel = 'SMS' group by status"))


def flush(redis_url: str) -> None:
    server = redis.Redis.from_url(redis_url)
    server.flushall()
    server.close()


def times_sent(sandbox: Sandbox) -> Counter[str]:
    return Counter(entry.to for entry in sandbox.outbox.entries())


def test_what_waits_when_redis_is_emptied_goes_out_once(
    environ: dict[str, str], sandbox: Sandbox, redis_url: str, postgres_url: str, tmp_path: Path
) -> None:
    # Nobody is killed here, so no lease has to end soon; a send that lacks the machine's time may take its time.
    environ |= {"TOCSIN_ACTORS__LEASE": "60s", "TOCSIN_SMS__TWILIO__TIMEOUT": "20s"}
    http = Program(tmp_path, "http", environ=environ)
    actors = [Program(tmp_path, "actors", environ=environ) for _ in range(2)]
    with running(http, *actors):
        with client(http.url) as api:
            posted(api, recipients=people(WAITING), notificationPriority="MEDIUM")
        eventually(lambda: sum(statuses(postgres_url).values()) == WAITING, limit_s=60)
        flush(redis_url)

        def all_sent() -> bool:
            found = statuses(postgres_url)
            assert found == {"SENT": WAITING}, found
            return True

        eventually(all_sent, limit_s=90)
        assert [program.stop() for program in (http, *actors)] == [0, 0, 0]
    assert sandbox.outbox.received == WAITING
    ((cause, exact),) = rows_of(postgres_url, "select cause, exact from lives where cause <> 'first'")
    assert (cause, exact) == ("emptied", True)


def test_a_kill_in_the_same_moment_sends_nothing_twice_and_hides_nothing(
    environ: dict[str, str], sandbox: Sandbox, redis_url: str, postgres_url: str, tmp_path: Path
) -> None:
    http = Program(tmp_path, "http", environ=environ)
    doomed, survivor = (Program(tmp_path, "actors", environ=environ) for _ in range(2))
    with running(http, doomed, survivor):
        with client(http.url) as api:
            posted(api, recipients=people(SENDING), notificationPriority="HIGH")
        eventually(lambda: len(times_sent(sandbox)) > SENDING // 10, limit_s=60, every_s=0.001)
        doomed.kill()
        flush(redis_url)

        def final() -> bool:
            found = statuses(postgres_url)
            return sum(found.values()) == SENDING and found.keys() <= {"SENT", "UNCERTAIN"}

        eventually(final, limit_s=90)
        assert survivor.stop() == 0
    sent = times_sent(sandbox)
    assert set(sent.values()) == {1}
    assert statuses(postgres_url)["SENT"] <= len(sent)
    of_doubt = "select distinct reason from deliveries where channel = 'SMS' and status = 'UNCERTAIN'"
    doubted = rows_of(postgres_url, of_doubt)
    assert {reason for (reason,) in doubted} <= {"redis_lost"}
    ((status,),) = rows_of(postgres_url, "select status from events")
    assert status == "COMPLETED"
