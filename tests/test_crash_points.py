"""kill -9 of actors before and after every script: nothing lost, nothing doubled."""

from pathlib import Path

import pytest

from tests.mortals import IN_ACTORS, PEOPLE, deliveries, mortal, nothing_left, post, settled, short_lived
from tests.program import Program, client, eventually, running
from tests.slow_mail import SlowMail

pytestmark = [pytest.mark.servers, pytest.mark.processes, pytest.mark.timeout(240)]


@pytest.fixture
def environ(mail: SlowMail, redis_url: str, postgres_url: str) -> dict[str, str]:
    return short_lived(redis_url, postgres_url, **mail.environ)


def test_actors_killed_before_and_after_every_script_lose_and_double_nothing(
    environ: dict[str, str], mail: SlowMail, redis_url: str, postgres_url: str, tmp_path: Path
) -> None:
    http, survivor = Program(tmp_path, "http", environ=environ), Program(tmp_path, "actors", environ=environ)
    with running(http), client(http.url) as api:
        for number, point in enumerate(IN_ACTORS):
            with mortal(tmp_path, point, "actors", environ=environ) as doomed:
                post(api, f"p{number}u")
                assert doomed.wait(30) == -9, point
        with running(survivor):
            eventually(lambda: settled(postgres_url, len(IN_ACTORS) * PEOPLE * 2), limit_s=60)
            # What a killed persister had taken is stored by another, some seconds later.
            eventually(lambda: nothing_left(redis_url), limit_s=30)
            found = deliveries(postgres_url)
            assert survivor.stop() == 0
    for delivery, channel, status, history in found:
        if channel == "EMAIL":
            assert status == "SENT"
            doubts = sum(place.split(":")[1] == "UNCERTAIN" for place in history)
            assert 1 <= mail.taken[delivery] <= 1 + doubts
    # A call that had not begun leaves no doubt. How many had begun depends on what else was under way at each kill.
    doubted = [history for *_, history in found if "1:UNCERTAIN" in history]
    assert doubted
    assert [history for history in doubted if "1:SENDING" not in history] == []
