"""read: how long a person who marks a notification read waits for the answer, which is given when nothing more of it
can go out and both stores have it. On an idle machine: 20 requests a second at random moments, on one connection, of
notifications whose SMS and email wait for their time."""

import http.client
import json
import random
import socket
import time
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

from tocsin.bench.report import Figure, under
from tocsin.bench.servers import ADMIN_KEY, Program, folder, own_servers, running, tocsin

_RATE: Final = 20
_ROUNDS: Final = 3
_USER: Final = "reader"
_SETTLE_S: Final = 2.0
_SETTLED_WITHIN_S: Final = 60.0


class NotFound(Exception):
    """It is not there, or not yet."""


class Api:
    """One connection that is kept, with one credential."""

    def __init__(self, port: int, credential: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._headers = {"Authorization": f"Bearer {credential}", "Content-Type": "application/json"}

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer's document. Raises NotFound, and RuntimeError for another that is not a success."""
        text = json.dumps(body) if body is not None else None
        self._connection.request(method, path, text, self._headers)
        answer = self._connection.getresponse()
        told: dict[str, Any] = json.loads(answer.read())
        if answer.status == 404:
            raise NotFound
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path} was answered {answer.status}: {told.get('code')}")
        return told


def measure(seconds: float) -> list[Figure]:
    """Takes about `seconds`, and some more to post what is read."""
    count = max(_RATE, int(_RATE * seconds / _ROUNDS))
    with (
        folder() as where,
        own_servers(where / "data") as servers,
        running(tocsin("serve"), where, servers.environ()) as program,
    ):
        program.ready()
        rounds = [_round(program, count) for _ in range(_ROUNDS)]
    p99 = [_quantile(each, 0.99) for each in rounds]
    longest, median = max(map(max, rounds)), _quantile([*chain(*rounds)], 0.5)
    return [under("read_p99", "ms", p99, 5, at=f"{_RATE}/s", median_ms=round(median, 2), longest_ms=round(longest, 1))]


def _round(program: Program, count: int) -> list[float]:
    """Milliseconds that each of `count` reads took, from the moment at which it should have gone out."""
    sender = Api(program.port, ADMIN_KEY)
    notifications = _posted(sender, count)
    reader = Api(program.port, sender.ask("POST", f"/api/users/{_USER}/token")["token"])
    gaps, latencies = random.Random(1), []
    next_s = time.perf_counter()
    for notification in notifications:
        next_s += gaps.expovariate(_RATE)
        time.sleep(max(0.0, next_s - time.perf_counter()))
        read = reader.ask("POST", f"/api/notifications/{notification}/read")
        latencies.append((time.perf_counter() - next_s) * 1000)
        if not read["notification"]["read"]:
            raise RuntimeError("a notification was not read")
    return latencies


def _posted(sender: Api, count: int) -> Sequence[str]:
    """The ids of `count` notifications that are stored and whose later steps wait."""
    person = {"id": _USER, "email": "reader@example.org", "phone": "+14155550123"}
    event = {
        "type": "event.approval",
        "message": "It is approved",
        "recipients": [person],
        "deliveryStrategy": "ESCALATION",
    }
    made = [sender.ask("POST", "/api/notifications", event)["notifications"][0]["id"] for _ in range(count)]
    end_s = time.monotonic() + _SETTLED_WITHIN_S
    while not _is_stored(sender, made[-1]):
        if time.monotonic() > end_s:
            raise RuntimeError("what was posted is not stored")
        time.sleep(0.1)
    time.sleep(_SETTLE_S)
    return made


def _is_stored(sender: Api, notification: str) -> bool:
    try:
        told = sender.ask("GET", f"/api/notifications/{notification}/delivery-status")
    except NotFound:
        return False
    return len(told["deliveries"]) >= 2  # SMS and email, beside what started at once


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
