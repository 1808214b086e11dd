"""kill -9 of http before and after every script: nothing lost, nothing doubled, and what was answered holds."""

from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.mortals import IN_HTTP, PEOPLE, deliveries, mortal, nothing_left, post, settled, short_lived
from tests.program import Program, client, eventually, posted, running
from tests.served import token_of
from tests.slow_mail import SlowMail

pytestmark = [pytest.mark.servers, pytest.mark.processes, pytest.mark.timeout(180)]


@pytest.fixture
def environ(mail: SlowMail, redis_url: str, postgres_url: str) -> dict[str, str]:
    return short_lived(redis_url, postgres_url, **mail.environ)


def test_http_killed_before_and_after_every_script_loses_and_doubles_nothing(
    environ: dict[str, str], mail: SlowMail, redis_url: str, postgres_url: str, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{environ['TOCSIN_HTTP__PORT']}"
    actors = Program(tmp_path, "actors", environ=environ)
    with running(actors), client(url) as api:
        for number, point in enumerate(IN_HTTP):
            with mortal(tmp_path, point, "http", environ=environ) as doomed:
                eventually(lambda: api.get("/health").status_code == 200)
                with suppress(httpx.TransportError):
                    live_through(api, number, point)
                assert doomed.wait(30) == -9, point
        # What was not answered is asked again, as callers do.
        with running(Program(tmp_path, "http", environ=environ)):
            for identifier, channel, status, _ in deliveries(postgres_url):
                if channel == "EMAIL" and status == "SCHEDULED":
                    note = api.get(f"/api/deliveries/{identifier}").json()["notificationId"]
                    late = {"Authorization": f"Bearer {token_of('late')}"}
                    assert api.post(f"/api/notifications/{note}/read", headers=late).status_code == 200
            # Stored though it was not answered counts too: it is entered some seconds later.
            accepted = len(IN_HTTP) * PEOPLE * 2 + 4
            found = eventually(lambda: settled(postgres_url, accepted), limit_s=30)
            eventually(lambda: nothing_left(redis_url), limit_s=15)
        assert actors.stop() == 0
    assert all(
        mail.taken[delivery] == (status == "SENT") for delivery, channel, status, _ in found if channel == "EMAIL"
    )


def live_through(api: httpx.Client, number: int, point: str) -> None:
    """Posts, and reads or cancels, until it gets no answer."""
    told = post(api, f"p{number}u")
    # An escalation waits forty minutes for its mail: what is read or withdrawn meanwhile never goes out.
    waiting = {"channels": ["EMAIL"], "notificationPriority": "LOW"}
    later = posted(api, recipients=[{"id": "late", "email": "late@example.org"}], **waiting)
    note = later["notifications"][0]["id"]
    eventually(lambda: api.get(f"/api/notifications/{note}/delivery-status").json()["deliveries"])
    if "read" in point:
        api.post(f"/api/notifications/{note}/read", headers={"Authorization": f"Bearer {token_of('late')}"})
    else:
        api.post(f"/api/events/{told['id']}/cancel", json={"reason": "a test"})
