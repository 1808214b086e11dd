"""Any number of processes beside each other, started, killed and frozen at will (D1): each message goes out once."""

import signal
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from tests.program import Program, client, environment, eventually, posted, running
from tests.slow_mail import SlowMail

pytestmark = [pytest.mark.servers, pytest.mark.processes, pytest.mark.timeout(150)]

LEASE_S = 3.5
SHORT = {
    "TOCSIN_ACTORS__LEASE": f"{int(LEASE_S * 1000)}ms",
    "TOCSIN_ACTORS__SHUTDOWN": "3s",
    "TOCSIN_HTTP__SHUTDOWN": "2s",
    "TOCSIN_EMAIL__SMTP__TIMEOUT": "1s",
    "TOCSIN_SMS__TWILIO__TIMEOUT": "1s",
    "TOCSIN_PUSH__FCM__TIMEOUT": "1s",
}


@pytest.fixture
def mail() -> Iterator[SlowMail]:
    with SlowMail(delay_s=0.05) as server:
        yield server


def rows(postgres_url: str) -> dict[str, tuple[str, bool]]:
    """Of each mail, its status and whether its outcome was unknown at a time."""
    connection = psycopg2.connect(postgres_url)
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "select id::text, status, history::text like '%:UNCERTAIN%' from deliveries where channel = 'EMAIL'"
        )
        found = {identifier: (status, unknown) for identifier, status, unknown in cursor.fetchall()}
    connection.close()
    return found


def test_what_a_killed_process_held_is_taken_up_within_its_lease_and_a_second(
    redis_url: str, postgres_url: str, mail: SlowMail, tmp_path: Path
) -> None:
    """Measured from the kill to the next call of the provider, with another process there to take it up."""
    environ = environment(None, redis_url, postgres_url, **SHORT, **mail.environ)
    http, heir = Program(tmp_path, "http", environ=environ), Program(tmp_path, "actors", environ=environ)
    took: list[float] = []
    with running(http, heir), client(http.url) as api:
        for turn in range(3):
            heir.signal(signal.SIGSTOP)
            doomed = Program(tmp_path, "actors", environ=environ)
            with running(doomed):
                mail.delay_s = 60.0
                posted(api, recipients=[{"id": f"u{turn}", "email": f"u{turn}@example.org"}], channels=["EMAIL"],
                       notificationPriority="HIGH")  # fmt: skip
                eventually(lambda: mail.under_way > 0)
                before = len(mail.times)
                doomed.kill()
                killed_s = time.time()
            mail.delay_s = 0.0
            heir.signal(signal.SIGCONT)
            eventually(lambda before=before: len(mail.times) > before)
            took.append(mail.times[before][0] - killed_s)
            eventually(lambda turn=turn: len(rows(postgres_url)) == turn + 1)
            eventually(lambda: {status for status, _ in rows(postgres_url).values()} == {"SENT"})
        assert heir.stop() == 0
    print(f"taken up after {', '.join(f'{each:.2f}' for each in took)} s, lease {LEASE_S} s")  # noqa: T201
    assert statistics.median(took) <= LEASE_S + 1
