"""read: how long a person who marks a notification read waits for the answer, which is given when nothing more of it
can go out and both stores have it. On an idle machine: 20 requests a second at random moments, of notifications whose
SMS and email wait for their time. Readers do not share a connection, so none waits for the answer to another. Beside it
how long a request waits that asks for nothing: the machine's own part."""

import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from queue import SimpleQueue
from typing import Final

from tocsin.bench import crowd
from tocsin.bench.api import Api, NotFound
from tocsin.bench.report import Figure, quantile, shown, under
from tocsin.bench.servers import ADMIN_KEY, Program, folder, own_servers, running, tocsin

_RATE: Final = 20
_ROUNDS: Final = 3
_CONNECTIONS: Final = 8
_USER: Final = "reader"
_SETTLE_S: Final = 2.0
_SETTLED_WITHIN_S: Final = 60.0


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
    reads, nothing = ([each[place] for each in rounds] for place in (0, 1))
    notes = {"at": f"{_RATE}/s", "median_ms": _median(reads), "longest_ms": round(max(map(max, reads)), 1)}
    return [
        under("read_p99", "ms", [quantile(each, 0.99) for each in reads], 5, **notes),
        shown("read_nothing_p99", "ms", [quantile(each, 0.99) for each in nothing], median_ms=_median(nothing)),
    ]


def _median(rounds: Sequence[Sequence[float]]) -> float:
    return round(quantile([*chain(*rounds)], 0.5), 2)


def _round(program: Program, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds that each of `count` reads took, and then each of as many requests of which nothing is stored and
    nobody asked: what this machine takes for the way alone."""
    sender = Api(program.port, ADMIN_KEY)
    notifications = _posted(sender, count)
    token = sender.ask("POST", f"/api/users/{_USER}/token")["token"]
    connections = SimpleQueue[Api]()
    for _ in range(_CONNECTIONS):
        connections.put(connection := Api(program.port, token))
        connection.ask("GET", "/health")
    reads = _took_ms(connections, [("POST", f"/api/notifications/{each}/read") for each in notifications])
    nothing = _took_ms(connections, [("GET", "/health")] * count)
    while not connections.empty():
        connections.get().close()
    return reads, nothing


def _took_ms(connections: SimpleQueue[Api], requests: Sequence[tuple[str, str]]) -> list[float]:
    """How long each request took, from the moment at which it should have gone out."""

    def ask(method: str, path: str, due_s: float) -> float:
        connection = connections.get()
        answer = connection.ask(method, path)
        took_ms = (time.perf_counter() - due_s) * 1000
        connections.put(connection)
        if method == "POST" and not answer["notification"]["read"]:
            raise RuntimeError("a notification was not read")
        return took_ms

    gaps, asked = random.Random(1), []
    next_s = time.perf_counter()
    with ThreadPoolExecutor(_CONNECTIONS) as clients:
        for method, path in requests:
            next_s += gaps.expovariate(_RATE)
            time.sleep(max(0.0, next_s - time.perf_counter()))
            asked.append(clients.submit(ask, method, path, next_s))
    return [each.result() for each in asked]


def _posted(sender: Api, count: int) -> Sequence[str]:
    """The ids of `count` notifications that are stored and whose later steps wait."""
    person = {"id": _USER, "email": "reader@example.org", "phone": "+14155550123"}
    event = {
        "type": "event.approval",
        "message": "It is approved",
        "recipients": [person],
        "deliveryStrategy": "ESCALATION",
    }
    made = crowd.tell_often(sender, count, event)
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
