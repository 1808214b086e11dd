"""Any number of processes beside each other, started, killed and frozen at will (D1): each message goes out once."""

import random
import signal
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg2
import pytest
import redis

from tests.program import ADMIN_KEY, Program, client, environment, eventually, posted, running
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
FINAL = {"SENT", "DELIVERED"}
KILLS = 10


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


class Load:
    """Posts steadily to whichever process answers; keeps what was accepted."""

    def __init__(self, urls: list[str]) -> None:
        self.urls = urls
        self.accepted: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(0.03):
            number += 1
            person = {"id": f"u{number}", "email": f"u{number}@example.org"}
            event = {"type": "x.y", "message": "x", "recipients": [person], "channels": ["EMAIL", "IN_APP"]}
            # The key makes the repetition, at another process, the same request.
            headers = {"Authorization": f"Bearer {ADMIN_KEY}", "Idempotency-Key": f"k{number}"}
            for url in random.sample(self.urls, len(self.urls)) * 20:
                try:
                    answer = httpx.post(f"{url}/api/notifications", json=event, headers=headers, timeout=10)
                except httpx.TransportError:
                    time.sleep(0.05)
                    continue
                if answer.status_code == 202:
                    self.accepted.add(answer.json()["notifications"][0]["id"])
                    break
                time.sleep(0.1)


def test_processes_that_come_and_go_under_load_send_everything_once(
    redis_url: str, postgres_url: str, mail: SlowMail, tmp_path: Path
) -> None:
    def program(*arguments: str) -> Program:
        environ = environment(None, redis_url, postgres_url, **SHORT, **mail.environ)
        return Program(tmp_path, *arguments, environ=environ)

    planning, sending = "fan_out,route,persist", "send_email,send_sms,send_push,persist"
    https = [program("http") for _ in range(2)]
    actors = [program("actors", "--queues", queues) for queues in (planning, planning, sending, sending)]
    chance = random.Random(3)  # a seed, so that the run can be repeated
    with running(*https, *actors):
        with Load([each.url for each in https]) as load:
            for turn in range(KILLS):
                victim = chance.choice([*https, *actors] if turn % 2 else actors)
                victim.kill() if chance.random() < 0.7 else victim.stop()
                victim.start()
                before = len(mail.taken)
                eventually(lambda before=before: len(mail.taken) > before)
        for each in (*https, *actors):
            each.ready()
        accepted = len(load.accepted)
        eventually(lambda: len(rows(postgres_url)) == accepted, limit_s=30)
        eventually(lambda: {status for status, _ in rows(postgres_url).values()} <= FINAL, limit_s=30)
        for each in (*https, *actors):
            assert each.stop() == 0
    found = rows(postgres_url)
    assert accepted >= 20
    assert set(mail.taken) == set(found)
    doubled = {delivery for delivery, times in mail.taken.items() if times > 1}
    assert doubled <= {delivery for delivery, (_, unknown) in found.items() if unknown}


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


def test_a_process_that_was_frozen_past_its_lease_sends_nothing_when_it_wakes(
    redis_url: str, postgres_url: str, mail: SlowMail, tmp_path: Path
) -> None:
    given = SHORT | {"TOCSIN_EMAIL__ON_UNCERTAIN": "hold", "TOCSIN_EMAIL__SMTP__CONNECTIONS": "5"}
    environ = environment(None, redis_url, postgres_url, **given, **mail.environ)
    http, frozen = Program(tmp_path, "http", environ=environ), Program(tmp_path, "actors", environ=environ)
    heir = Program(tmp_path, "actors", environ=environ)
    mail.delay_s = 0.3
    with running(http, frozen):
        with client(http.url) as api:
            people = [{"id": f"u{number}", "email": f"u{number}@example.org"} for number in range(60)]
            posted(api, recipients=people, channels=["EMAIL"], notificationPriority="HIGH")
        eventually(lambda: len(mail.taken) >= 10)
        frozen.signal(signal.SIGSTOP)
        mail.delay_s = 0.0
        with running(heir):
            eventually(lambda: {status for status, _ in rows(postgres_url).values()} <= {"SENT", "UNCERTAIN"})
            frozen.signal(signal.SIGCONT)
            eventually(lambda: {status for status, _ in rows(postgres_url).values()} <= {"SENT", "UNCERTAIN"})
            assert [frozen.stop(), heir.stop()] == [0, 0]
    found = rows(postgres_url)
    assert len(found) == 60
    assert set(mail.taken.values()) == {1}
    # What had begun when it was frozen is known again once it told: its own word settles what looked lost.
    assert {delivery for delivery, (status, _) in found.items() if status == "SENT"} <= set(mail.taken)


def test_the_lock_of_a_job_whose_process_died_is_free_within_seconds(
    redis_url: str, postgres_url: str, mail: SlowMail, tmp_path: Path
) -> None:
    environ = environment(None, redis_url, postgres_url, **SHORT, **mail.environ)
    doomed, heir = Program(tmp_path, "actors", environ=environ), Program(tmp_path, "actors", environ=environ)
    http = Program(tmp_path, "http", environ=environ)
    blocking = psycopg2.connect(postgres_url)
    with running(http), blocking:
        with blocking.cursor() as cursor:
            # The job that enters events, holding its lock, waits for this.
            cursor.execute("lock table events in access exclusive mode")
            with running(doomed):
                eventually(lambda: lock_is_held(redis_url), limit_s=15)
                doomed.kill()
        blocking.rollback()
        began = time.monotonic()
        with running(heir):
            eventually(lambda: not lock_is_held(redis_url) or time.monotonic() - began > 7)
            assert time.monotonic() - began <= 7
            assert heir.stop() == 0


def lock_is_held(redis_url: str) -> bool:
    with redis.Redis.from_url(redis_url) as asking:
        return bool(asking.exists("tocsin:lock:enter_unstarted"))
