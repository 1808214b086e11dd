"""Any number of processes beside each other, started and killed at will (D1): each message goes out once."""

import random
import signal
from pathlib import Path

import psycopg2
import pytest
import redis

from tests.many_processes import SHORT, Load, mails
from tests.program import Program, environment, eventually, running
from tests.slow_mail import SlowMail

pytestmark = [pytest.mark.servers, pytest.mark.processes, pytest.mark.timeout(150)]

KILLS = 6
FINAL = {"SENT", "DELIVERED"}


def test_processes_that_come_and_go_under_load_send_everything_once(
    redis_url: str, postgres_url: str, mail: SlowMail, tmp_path: Path
) -> None:
    def program(*arguments: str) -> Program:
        # Each kill may cost a delivery an attempt, and so may a moment in which the machine has no time.
        patient = {"TOCSIN_RETRY__ATTEMPTS": "50", "TOCSIN_RETRY__BASE": "100ms", "TOCSIN_RETRY__CAP": "1s"}
        environ = environment(None, redis_url, postgres_url, **SHORT, **patient, **mail.environ)
        return Program(tmp_path, *arguments, environ=environ)

    planning, sending = "fan_out,route,persist", "send_email,persist"
    https = [program("http") for _ in range(2)]
    actors = [program("actors", "--queues", queues) for queues in (planning, planning, sending, sending)]
    mail.delay_s = 0.05
    chance = random.Random(3)  # a seed, so that the run can be repeated
    with running(*https, *actors):
        with Load([each.url for each in https]) as load:
            for turn in range(KILLS):
                victim = chance.choice(https if turn % 3 == 2 else actors)
                victim.kill() if chance.random() < 0.7 else victim.stop()
                victim.start()
                before = len(mail.taken)
                eventually(lambda before=before: len(mail.taken) >= before + 10)
        accepted = load.accepted
        eventually(lambda: len(mails(postgres_url)) == len(accepted))
        eventually(lambda: {status for status, _ in mails(postgres_url).values()} <= FINAL)
        for each in (*https, *actors):
            each.ready()
        for each in (*https, *actors):
            each.signal(signal.SIGTERM)
        assert [each.wait(30) for each in (*https, *actors)] == [0] * 6
    found = mails(postgres_url)
    assert len(accepted) >= KILLS * 10
    assert set(mail.taken) == set(found)
    doubled = {delivery for delivery, times in mail.taken.items() if times > 1}
    assert doubled <= {delivery for delivery, (_, unknown) in found.items() if unknown}


def test_the_lock_of_a_job_whose_process_died_is_taken_over_within_seconds(
    redis_url: str, postgres_url: str, mail: SlowMail, tmp_path: Path
) -> None:
    environ = environment(None, redis_url, postgres_url, **SHORT, **mail.environ)
    doomed, heir = Program(tmp_path, "actors", environ=environ), Program(tmp_path, "actors", environ=environ)
    blocking = psycopg2.connect(postgres_url)
    with running(doomed), blocking, blocking.cursor() as cursor:
        # The job that enters events, holding its lock, waits for this.
        cursor.execute("lock table events in access exclusive mode")
        held = eventually(lambda: holder(redis_url))
        with running(heir):
            doomed.kill()
            # Five seconds until it is free, and five until the job's next turn.
            eventually(lambda: holder(redis_url) not in {None, held}, limit_s=12)
            blocking.rollback()
            assert heir.stop() == 0
    blocking.close()


def holder(redis_url: str) -> bytes | None:
    """The token of who holds the lock of the job that enters events."""
    with redis.Redis.from_url(redis_url) as asking:
        token: bytes | None = asking.get("tocsin:lock:enter_unstarted")  # type: ignore[assignment]
        return token
