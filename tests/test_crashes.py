"""kill -9 at every point that could lose or double something; another process takes the work up."""

from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.program import Program, client, environment, eventually, posted, running
from tests.stored import rows_of
from tocsin.channels.sandbox.sandbox import Sandbox

pytestmark = [pytest.mark.servers, pytest.mark.processes, pytest.mark.timeout(180)]

PEOPLE = 30


@pytest.fixture
def environ(sandbox: Sandbox, redis_url: str, postgres_url: str) -> dict[str, str]:
    """Leases as short as the providers' time-outs allow, so that what a dead process held is soon free."""
    given = environment(
        sandbox,
        redis_url,
        postgres_url,
        TOCSIN_ACTORS__LEASE="4s",
        TOCSIN_EMAIL__SMTP__TIMEOUT="1s",
        TOCSIN_SMS__TWILIO__TIMEOUT="1s",
        TOCSIN_PUSH__FCM__TIMEOUT="1s",
        TOCSIN_RETRY__BASE="100ms",
        TOCSIN_BREAKER__REST="500ms",
        TOCSIN_BREAKER__CAP="1s",
    )
    # Twilio is told our delivery's id by the address of its receipts.
    return given | {"TOCSIN_HTTP__PUBLIC_URL": f"http://127.0.0.1:{given['TOCSIN_HTTP__PORT']}"}


def people() -> list[dict[str, str]]:
    return [{"id": f"u{n}", "email": f"u{n}@example.org", "phone": f"+1415555{n:04d}"} for n in range(PEOPLE)]


def rows(postgres_url: str) -> list[tuple[str, str, str]]:
    return rows_of(postgres_url, "SELECT id::text, channel, status FROM deliveries")


def settled(postgres_url: str) -> list[tuple[str, str, str]]:
    """Every delivery of the event, once each is final."""
    found = rows(postgres_url)
    assert len(found) == PEOPLE * 4
    final = {"SENT", "DELIVERED", "SUPPRESSED", "UNCERTAIN", "FAILED", "DEAD", "CANCELLED", "BOUNCED"}
    assert {status for _, _, status in found} <= final
    return found


def sent_times(sandbox: Sandbox) -> Counter[str]:
    return Counter(str(entry.delivery) for entry in sandbox.outbox.entries())


def take_up(api_environ: dict[str, str], folder: Path, postgres_url: str) -> list[tuple[str, str, str]]:
    survivor = Program(folder, "actors", environ=api_environ)
    with running(survivor):
        found = eventually(lambda: settled(postgres_url), limit_s=60)
        assert survivor.stop() == 0
    return found


def post_to(http: Program) -> dict[str, Any]:
    with client(http.url) as api:
        return posted(api, title="Approved", recipients=people(), notificationPriority="HIGH")


@pytest.mark.parametrize(
    "point",
    ["before a chunk is routed", "after a chunk is routed", "between claim and begin"],
)
def test_where_no_provider_call_was_under_way_each_delivery_is_made_once(
    point: str, environ: dict[str, str], sandbox: Sandbox, postgres_url: str, tmp_path: Path
) -> None:
    http = Program(tmp_path, "http", environ=environ)
    doomed = Program(tmp_path, "actors", environ=environ, dies=(point, 1))
    with running(http, doomed):
        post_to(http)
        assert doomed.wait(30) == -9
        found = take_up(environ, tmp_path, postgres_url)
    made = {delivery for delivery, channel, status in found if status in {"SENT", "DELIVERED"} and channel != "IN_APP"}
    assert {status for _, _, status in found} <= {"SENT", "DELIVERED", "SUPPRESSED"}
    assert len(made) == PEOPLE * 2
    assert sent_times(sandbox) == dict.fromkeys(made, 1)
    assert not any(uncertain_before(postgres_url, delivery) for delivery in made)


def test_a_process_killed_between_accept_and_fan_out_loses_nothing(
    environ: dict[str, str], sandbox: Sandbox, postgres_url: str, tmp_path: Path
) -> None:
    http = Program(tmp_path, "http", environ=environ, dies=("between accept and fan_out", 1))
    with running(http):
        with pytest.raises(httpx.TransportError):
            post_to(http)
        assert http.wait(10) == -9
        found = take_up(environ, tmp_path, postgres_url)
    assert set(sent_times(sandbox).values()) == {1}
    assert len(found) == PEOPLE * 4


@pytest.mark.parametrize("point", ["between send and record", "between record and reply", "between commit and trim"])
def test_where_calls_were_under_way_only_what_is_uncertain_and_resent_goes_out_twice(
    point: str, environ: dict[str, str], sandbox: Sandbox, postgres_url: str, tmp_path: Path
) -> None:
    http = Program(tmp_path, "http", environ=environ)
    doomed = Program(tmp_path, "actors", environ=environ, dies=(point, 1))
    with running(http, doomed):
        post_to(http)
        assert doomed.wait(30) == -9
        found = take_up(environ, tmp_path, postgres_url)
    times = sent_times(sandbox)
    for delivery, channel, status in found:
        if channel == "SMS":
            # What is unknown is held: it went out, or the process died in the moment before it would have.
            assert times[delivery] <= 1
            assert status in {"SENT", "DELIVERED"} if times[delivery] else status == "UNCERTAIN"
        elif channel == "EMAIL":
            assert times[delivery] == 1 or (times[delivery] == 2 and uncertain_before(postgres_url, delivery))
            assert status == "SENT"


def uncertain_before(postgres_url: str, delivery: str) -> bool:
    return rows_of(postgres_url, "SELECT history ? '1:UNCERTAIN' FROM deliveries WHERE id = %s", delivery) == [(True,)]


def test_a_second_actors_process_shares_the_work_and_doubles_nothing(
    environ: dict[str, str], sandbox: Sandbox, postgres_url: str, tmp_path: Path
) -> None:
    # Nobody is killed here: time-outs are long, so that a slow machine makes nothing uncertain.
    patient = {name: "30s" for name in environ if name.endswith("__TIMEOUT")} | {"TOCSIN_ACTORS__LEASE": "60s"}
    environ = environ | patient
    http = Program(tmp_path, "http", environ=environ)
    both = [Program(tmp_path, "actors", environ=environ) for _ in range(2)]
    with running(http, *both):
        for _ in range(5):
            post_to(http)
        eventually(lambda: len(sandbox.outbox.entries()) >= 5 * PEOPLE * 2, limit_s=60)
        assert set(sent_times(sandbox).values()) == {1}
        assert [program.stop() for program in both] == [0, 0]
    assert set(sent_times(sandbox).values()) == {1}
    assert len(sent_times(sandbox)) == 5 * PEOPLE * 2
