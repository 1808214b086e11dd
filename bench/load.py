"""A light HTTP client, run as a process of its own so that it shares nothing with what it measures:

    load.py <port> <connections> <seconds> <requests a second, 0 for as many as are answered>

With a rate the arrivals are random and independent of the answers (open loop): each latency counts from the moment at
which its request should have gone out, so that a server that stalls cannot hide those it keeps from being sent; with 0
seconds it asks until it is told a line. Prints one line of JSON. It imports nothing of the program and nothing beyond
the standard library.
"""

import json
import os
import random
import resource
import select
import selectors
import socket
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field

_PATIENCE_S = 10.0
_USERS = 10_000
_FOR_EVER_S = 1e9


@dataclass(slots=True)
class Connection:
    """A connection with at most one request under way; `began_s` is when that should have been sent."""

    socket: socket.socket
    received: bytes = b""
    began_s: float = 0.0


@dataclass(slots=True)
class Outcome:
    """What came of it; `latencies_s` are of the answers that came."""

    latencies_s: list[float] = field(default_factory=list)
    wrong: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


class Client:
    """Speaks with one server over its own connections, without an event loop between."""

    def __init__(self, port: int, connections: int) -> None:
        self._requests = [_request(number) for number in range(_USERS)]
        self._next = 0
        self._connections = [_connect(port) for _ in range(connections)]
        self._by_descriptor = {each.socket.fileno(): each for each in self._connections}
        self._end_s = 0.0
        self.outcome = Outcome()

    def end(self) -> None:
        """Sends nothing more; for another thread to call while `open` runs."""
        self._end_s = min(self._end_s, time.perf_counter())

    def closed(self, seconds: float) -> None:
        """Each connection sends its next request when its last is answered."""
        with selectors.DefaultSelector() as selector:
            for connection in self._connections:
                selector.register(connection.socket, selectors.EVENT_READ, connection)
            self._closed(selector, seconds)

    def _closed(self, selector: selectors.BaseSelector, seconds: float) -> None:
        began_s = time.perf_counter()
        end_s = began_s + seconds
        for connection in self._connections:
            self._send(connection, time.perf_counter())
        while time.perf_counter() < end_s:
            for key, _ in selector.select(_PATIENCE_S):
                if self._answered(key.data):
                    self._send(key.data, time.perf_counter())
        self.outcome.seconds = time.perf_counter() - began_s

    def open(self, seconds: float, rate: float) -> None:
        """Requests go out at random moments, `rate` a second on average, on whichever connection is free."""
        gaps = random.Random(1)
        began_s = time.perf_counter()
        next_s, self._end_s = began_s, began_s + seconds
        free, busy = deque(self._connections), set[int]()
        late: deque[float] = deque()
        while (now_s := time.perf_counter()) < self._end_s + _PATIENCE_S and (next_s < self._end_s or busy or late):
            while next_s <= min(now_s, self._end_s):
                late.append(next_s)
                next_s += gaps.expovariate(rate)
            while late and free:
                connection = free.popleft()
                self._send(connection, late.popleft())
                busy.add(connection.socket.fileno())
            wait_s = max(0.0, next_s - time.perf_counter()) if next_s < self._end_s else _PATIENCE_S
            # Of all that wait for sockets only select waits for less than a millisecond.
            for descriptor in select.select(busy, (), (), wait_s)[0]:
                if self._answered(self._by_descriptor[descriptor]):
                    busy.discard(descriptor)
                    free.append(self._by_descriptor[descriptor])
        self.outcome.seconds = self._end_s - began_s
        if busy or late:
            self.outcome.wrong["unanswered"] = len(busy) + len(late)

    def close(self) -> None:
        for connection in self._connections:
            connection.socket.close()

    def _send(self, connection: Connection, began_s: float) -> None:
        connection.began_s = began_s
        connection.socket.sendall(self._requests[self._next])
        self._next = (self._next + 1) % _USERS

    def _answered(self, connection: Connection) -> bool:
        """Whether the whole answer is here; then it is counted."""
        part = connection.socket.recv(65_536)
        if not part:
            raise ConnectionError("the server closed a connection")
        text = connection.received + part
        head = text.find(b"\r\n\r\n")
        place = text.find(b"content-length: ")
        if head < 0 or len(text) < head + 4 + int(text[place + 16 : text.index(b"\r\n", place)]):
            connection.received = text
            return False
        connection.received = b""
        self.outcome.latencies_s.append(time.perf_counter() - connection.began_s)
        status = text[9:12]
        if status != b"202":
            self.outcome.wrong[status.decode()] = self.outcome.wrong.get(status.decode(), 0) + 1
        return True


def _connect(port: int) -> Connection:
    made = socket.create_connection(("127.0.0.1", port))
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Connection(made)


def _request(number: int) -> bytes:
    """An event for one person, given inline."""
    event = {
        "type": "event.approval",
        "title": "Approved",
        "message": "Your event has been approved",
        "recipients": [{"id": f"u{number}", "email": f"u{number}@example.org", "phone": f"+1415555{number:04d}"}],
        "metadata": {"actionUrl": f"/events/{number}"},
    }
    if channels := os.environ.get("LOAD_CHANNELS"):
        event["channels"] = channels.split(",")
    body = json.dumps(event).encode()
    head = (
        "POST /api/notifications HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {os.environ['TOCSIN_ADMIN_KEY']}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _quantile(sorted_values: list[float], share: float) -> float:
    return sorted_values[min(len(sorted_values) - 1, int(share * len(sorted_values)))] if sorted_values else 0.0


def main(port: str, connections: str, seconds: str, rate: str) -> None:
    client = Client(int(port), int(connections))
    before = resource.getrusage(resource.RUSAGE_SELF)
    began_s = time.perf_counter()
    if float(rate) and not float(seconds):
        threading.Thread(target=lambda: (sys.stdin.readline(), client.end()), daemon=True).start()
        client.open(_FOR_EVER_S, float(rate))
    elif float(rate):
        client.open(float(seconds), float(rate))
    else:
        client.closed(float(seconds))
    took_s = time.perf_counter() - began_s
    after = resource.getrusage(resource.RUSAGE_SELF)
    used_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    latencies = sorted(client.outcome.latencies_s)
    said = {
        "answered": len(latencies),
        "rate": len(latencies) / client.outcome.seconds,
        "median_ms": _quantile(latencies, 0.5) * 1000,
        "p99_ms": _quantile(latencies, 0.99) * 1000,
        "longest_ms": (latencies[-1] if latencies else 0.0) * 1000,
        "wrong": client.outcome.wrong,
        "client_share": used_s / took_s,
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
