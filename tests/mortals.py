"""Processes that die at a named point (crashing.py), one after the other, and what they leave behind."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import redis

from tests.crashing import POINTS
from tests.program import environment, posted
from tests.stored import rows_of

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


def short_lived(redis_url: str, postgres_url: str, **more: str) -> dict[str, str]:
    """The environment of processes that nobody waits long for."""
    short = {f"TOCSIN_{name}__TIMEOUT": "1s" for name in ("EMAIL__SMTP", "SMS__TWILIO", "PUSH__FCM")}
    return environment(None, redis_url, postgres_url, TOCSIN_ACTORS__LEASE="4s", **short, **more)


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
    return rows_of(postgres_url, "select id::text, channel, status, history from deliveries")


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
