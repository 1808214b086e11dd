"""Processes that die at a named point (crashing.py), one after the other, and what they leave behind."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import redis

from tests.crashing import POINTS
from tests.program import Program, environment, posted
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


@contextmanager
def mortal(folder: Path, point: str, *arguments: str, environ: dict[str, str]) -> Iterator[Program]:
    """A process that dies at `point`, be it ready by then or not."""
    made = Program(folder, *arguments, environ=environ, dies=(point, 1)).start()
    try:
        yield made
    finally:
        if made.process and made.process.poll() is None:
            made.kill()


def short_lived(redis_url: str, postgres_url: str, **more: str) -> dict[str, str]:
    """The environment of processes that nobody waits long for. Each death may cost a delivery an attempt, and so may
    a moment in which the machine has no time."""
    short = {f"TOCSIN_{name}__TIMEOUT": "1s" for name in ("EMAIL__SMTP", "SMS__TWILIO", "PUSH__FCM")}
    short |= {"TOCSIN_ACTORS__LEASE": "4s", "TOCSIN_BREAKER__REST": "500ms", "TOCSIN_BREAKER__CAP": "1s"}
    short |= {"TOCSIN_RETRY__BASE": "100ms", "TOCSIN_RETRY__CAP": "1s", "TOCSIN_RETRY__ATTEMPTS": "50"}
    return environment(None, redis_url, postgres_url, **short, **more)


def post(api: httpx.Client, name: str, **event: Any) -> dict[str, Any]:
    everybody = [{"id": f"{name}{n}", "email": f"{name}{n}@example.org"} for n in range(PEOPLE)]
    return posted(api, recipients=everybody, channels=["EMAIL", "IN_APP"], notificationPriority="HIGH", **event)


def deliveries(postgres_url: str) -> list[tuple[str, str, str, dict[str, Any]]]:
    """(id, channel, status, history) of each."""
    return rows_of(postgres_url, "select id::text, channel, status, history from deliveries")


def settled(postgres_url: str, count: int) -> list[tuple[str, str, str, dict[str, Any]]]:
    found = deliveries(postgres_url)
    assert len(found) == count
    open_ones = [each for each in found if each[2] not in FINAL]
    assert not open_ones, open_ones[:3]
    return found


def nothing_left(redis_url: str) -> bool:
    with redis.Redis.from_url(redis_url) as asking:
        kinds = ["tocsin:due", "tocsin:due:EMAIL", "tocsin:facts"]
        left = {key: asking.xlen(key) if key.endswith("facts") else asking.zcard(key) for key in kinds}
        assert not any(left.values()), left
        assert not list(asking.scan_iter("tocsin:flight:*")), "flights that nobody will end"
    return True
