"""kill -9 before and after every script, one after the other over the same data: nothing lost, nothing doubled."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg2
import pytest
import redis

from tests.crashing import POINTS
from tests.program import Program, client, environment, eventually, posted, running
from tests.served import token_of
from tests.slow_mail import SlowMail

pytestmark = [pytest.mark.servers, pytest.mark.processes, pytest.mark.timeout(180)]

IN_HTTP = [
    "between accept and fan_out",
    "after an event was entered",
    "before a read",
    "after a read",
    "before an event is withdrawn",
    "after an event is withdrawn",
]
IN_ACTORS = [point for point in POINTS if point not in IN_HTTP]
PEOPLE = 3
FINAL = {"SENT", "DELIVERED", "CANCELLED"}


class Mortals:
    """Processes that are forked from one that has read the program already, each until its point."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self._log = str(folder / "mortals.log")
        self._environ = environ
        self._parent = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("crashing.py")), "many"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environ},
        )
        self._waiting = ThreadPoolExecutor(1)

    def live(self, point: str, *arguments: str) -> "Future[int]":
        """The exit status, once it has died."""
        order = {"point": point, "nth": 1, "arguments": arguments, "environ": self._environ, "log": self._log}
        return self._waiting.submit(self._live, json.dumps(order))

    def _live(self, order: str) -> int:
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write(order + "\n")
        self._parent.stdin.flush()
        return int(self._parent.stdout.readline())

    def end(self) -> None:
        for child in psutil.Process(self._parent.pid).children(recursive=True):
            child.kill()
        self._parent.kill()
        self._parent.communicate()
        self._waiting.shutdown()


@pytest.fixture
def mail() -> Iterator[SlowMail]:
    with SlowMail() as server:
        yield server


@pytest.fixture
def environ(mail: SlowMail, redis_url: str, postgres_url: str) -> dict[str, str]:
    short = {f"TOCSIN_{name}__TIMEOUT": "1s" for name in ("EMAIL__SMTP", "SMS__TWILIO", "PUSH__FCM")}
    return environment(None, redis_url, postgres_url, TOCSIN_ACTORS__LEASE="4s", **short, **mail.environ)


@contextmanager
def mortals(folder: Path, environ: dict[str, str]) -> Iterator[Mortals]:
    made = Mortals(folder, environ)
    try:
        yield made
    finally:
        made.end()


def post(api: httpx.Client, name: str, **event: Any) -> dict[str, Any]:
    everybody = [{"id": f"{name}{n}", "email": f"{name}{n}@example.org"} for n in range(PEOPLE)]
    return posted(api, recipients=everybody, channels=["EMAIL", "IN_APP"], notificationPriority="HIGH", **event)


def deliveries(postgres_url: str) -> list[tuple[str, str, str, dict[str, Any]]]:
    """(id, channel, status, history) of each."""
    connection = psycopg2.connect(postgres_url)
    with connection, connection.cursor() as cursor:
        cursor.execute("select id::text, channel, status, history from deliveries")
        found: list[tuple[str, str, str, dict[str, Any]]] = cursor.fetchall()
    connection.close()
    return found


def settled(postgres_url: str, count: int) -> list[tuple[str, str, str, dict[str, Any]]]:
    found = deliveries(postgres_url)
    assert len(found) == count
    assert {status for _, _, status, _ in found} <= FINAL
    return found


def nothing_left(redis_url: str) -> bool:
    with redis.Redis.from_url(redis_url) as asking:
        kinds = ["tocsin:due", "tocsin:due:EMAIL", "tocsin:facts"]
        left = {key: asking.xlen(key) if key.endswith("facts") else asking.zcard(key) for key in kinds}
        assert not any(left.values()), left
        assert not list(asking.scan_iter("tocsin:flight:*")), "flights that nobody will end"
    return True


def test_actors_killed_before_and_after_every_script_lose_and_double_nothing(
    environ: dict[str, str], mail: SlowMail, redis_url: str, postgres_url: str, tmp_path: Path
) -> None:
    http, survivor = Program(tmp_path, "http", environ=environ), Program(tmp_path, "actors", environ=environ)
    with running(http), mortals(tmp_path, environ) as doomed, client(http.url) as api:
        for number, point in enumerate(IN_ACTORS):
            life = doomed.live(point, "actors")
            post(api, f"p{number}u")
            assert life.result(30) == -9, point
        with running(survivor):
            found = eventually(lambda: settled(postgres_url, len(IN_ACTORS) * PEOPLE * 2), limit_s=60)
            eventually(lambda: nothing_left(redis_url), limit_s=15)
            assert survivor.stop() == 0
    for delivery, channel, status, history in found:
        if channel == "EMAIL":
            assert status == "SENT"
            doubts = sum(place.split(":")[1] == "UNCERTAIN" for place in history)
            assert 1 <= mail.taken[delivery] <= 1 + doubts
    begun = 4  # points from where a provider call may have begun until Redis knows its outcome
    uncertain = sum("1:UNCERTAIN" in history for *_, history in found)
    assert uncertain <= begun * PEOPLE * 2


def test_http_killed_before_and_after_every_script_loses_and_doubles_nothing(
    environ: dict[str, str], mail: SlowMail, redis_url: str, postgres_url: str, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{environ['TOCSIN_HTTP__PORT']}"
    actors = Program(tmp_path, "actors", environ=environ)
    waiting = {"channels": ["EMAIL"], "notificationPriority": "LOW"}
    with running(actors), mortals(tmp_path, environ) as doomed, client(url) as api:
        for number, point in enumerate(IN_HTTP):
            life = doomed.live(point, "http")
            eventually(lambda: api.get("/health").status_code == 200)
            with suppress(httpx.TransportError):
                told = post(api, f"p{number}u")
                # An escalation waits forty minutes for its mail: what is read or withdrawn meanwhile never goes out.
                later = posted(api, recipients=[{"id": "late", "email": "late@example.org"}], **waiting)
                note = later["notifications"][0]["id"]
                eventually(lambda note=note: api.get(f"/api/notifications/{note}/delivery-status").json()["deliveries"])
                if "read" in point:
                    api.post(f"/api/notifications/{note}/read", headers={"Authorization": f"Bearer {token_of('late')}"})
                else:
                    api.post(f"/api/events/{told['id']}/cancel", json={"reason": "a test"})
            assert life.result(30) == -9, point
        # What was not answered is asked again, as callers do.
        with running(Program(tmp_path, "http", environ=environ)):
            for identifier, channel, status, _ in deliveries(postgres_url):
                if channel == "EMAIL" and status == "SCHEDULED":
                    note = api.get(f"/api/deliveries/{identifier}").json()["notificationId"]
                    late = {"Authorization": f"Bearer {token_of('late')}"}
                    assert api.post(f"/api/notifications/{note}/read", headers=late).status_code == 200
            eventually(lambda: {status for _, _, status, _ in deliveries(postgres_url)} <= FINAL, limit_s=30)
            eventually(lambda: nothing_left(redis_url), limit_s=15)
        assert actors.stop() == 0
    found = deliveries(postgres_url)
    assert all(
        mail.taken[delivery] == (status == "SENT") for delivery, channel, status, _ in found if channel == "EMAIL"
    )
    accepted = len(IN_HTTP) * PEOPLE * 2 + 4
    assert len(found) == accepted, "stored though it was not answered counts too"
