"""What is measured is what was meant: a server that stalls cannot hide whom it keeps waiting."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tocsin.bench import load, persist, report

ANSWER = b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n{}"
STALL_S = 0.4


@pytest.fixture
def stalling(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server that answers at once, but for one time when it keeps everybody waiting."""
    monkeypatch.setenv("TOCSIN_ADMIN_KEY", "tk_none")
    listening = socket.create_server(("127.0.0.1", 0))
    gate = threading.Lock()
    answered = iter(range(1_000_000))

    def serve(connection: socket.socket) -> None:
        with connection, suppress(ConnectionError):
            while connection.recv(65_536):
                with gate:
                    if next(answered) == 20:
                        threading.Event().wait(STALL_S)
                connection.sendall(ANSWER)

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    yield listening.getsockname()[1]
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    accepting.join(5)


def test_a_stall_counts_for_all_who_would_have_asked_meanwhile(stalling: int) -> None:
    client = load.Client(stalling, connections=4)
    client.open(1.0, rate=100)
    waited = [latency for latency in client.outcome.latencies_s if latency > STALL_S / 4]
    client.close()
    assert client.outcome.wrong == {}
    assert max(waited) >= STALL_S * 0.9
    # About forty were due during the stall, though only four connections could be stuck in it.
    assert len(waited) > 15


def test_a_closed_loop_counts_every_answer(stalling: int) -> None:
    client = load.Client(stalling, connections=2)
    client.closed(0.2)
    client.close()
    assert len(client.outcome.latencies_s) > 20
    assert client.outcome.wrong == {}


@pytest.mark.servers
def test_a_stage_yields_a_figure_beside_its_limit() -> None:
    (figure,) = persist.measure(seconds=0.1)
    told = figure.as_json()
    assert told["name"] == "persist"
    assert told["unit"] == "rows/s"
    assert told["ours"] > 0
    assert told["limit"] > 0
    assert told["reach"] == "≥ 0.8"
    assert told["ratio"] == pytest.approx(told["ours"] / told["limit"], rel=0.01)
    assert len(told["rounds"]["ours"]) == len(told["rounds"]["limit"]) == 3


def test_a_ceiling_is_reached_from_below() -> None:
    assert report.under("idle_memory", "MB", [96.0], 120).reached
    assert not report.under("idle_memory", "MB", [121.0], 120).reached
    assert report.beside("accept", "events/s", [60.0, 50.0, 70.0], [100.0, 100.0], least=0.5).ratio == 0.6
