"""A claim whose process was killed or frozen is taken up by another in time, and goes out once (D1)."""

import signal
import statistics
import time
from pathlib import Path

import pytest

from tests.many_processes import LEASE_S, SHORT, mails
from tests.program import Program, client, environment, eventually, posted, running
from tests.slow_mail import SlowMail

pytestmark = [pytest.mark.servers, pytest.mark.processes, pytest.mark.timeout(150)]


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
            eventually(lambda turn=turn: len(mails(postgres_url)) == turn + 1)
            eventually(lambda: {status for status, _ in mails(postgres_url).values()} == {"SENT"})
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
            ended = {"SENT", "UNCERTAIN"}
            eventually(lambda: [status in ended for status, _ in mails(postgres_url).values()] == [True] * 60)
            frozen.signal(signal.SIGCONT)
            assert [frozen.stop(), heir.stop()] == [0, 0]
            # That it did not answer in time was its own doing, not the provider's.
            assert "rests until" not in frozen.log.read_text() + heir.log.read_text()
    found = mails(postgres_url)
    assert len(found) == 60
    assert set(mail.taken.values()) == {1}
    # What had begun when it was frozen is known again once it told: its own word settles what looked lost.
    assert {delivery for delivery, (status, _) in found.items() if status == "SENT"} <= set(mail.taken)
    assert any(unknown for _, unknown in found.values())
