"""What is measured is what was meant: a server that stalls cannot hide whom it keeps waiting, a limit writes the bytes
that ours wrote, and the page says what the results say."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tocsin.bench import bare, charts, fan_out, load, page, persist, provider, report, watch

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


def test_it_asks_until_it_is_told_to_end(stalling: int) -> None:
    client = load.Client(stalling, connections=2)
    threading.Timer(0.3, client.end).start()
    client.open(3_600, rate=100)
    client.close()
    assert 5 < len(client.outcome.latencies_s) < 200
    assert client.outcome.seconds < 5


async def test_a_provider_counts_what_a_bare_client_sends() -> None:
    counts = provider.Counts()
    server = await asyncio.get_running_loop().create_server(lambda: provider.Mail(counts), "127.0.0.1", 0)
    async with server:
        await bare.mail(server.sockets[0].getsockname()[1], count=20, concurrency=4)
    told = counts.told()["EMAIL"]
    assert told["count"] == 20
    assert told["at_s"] == sorted(told["at_s"])


async def test_a_provider_far_away_answers_later() -> None:
    counts = provider.Counts()
    server = await asyncio.get_running_loop().create_server(lambda: provider.Web(counts, 25), "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        counts.forget(delay_ms=50)
        began = asyncio.get_running_loop().time()
        writer.write(b"POST /2010-04-01/Accounts/AC0/Messages.json HTTP/1.1\r\nContent-Length: 3\r\n\r\na=b")
        answer = await reader.readuntil(b"}")
        took_s = asyncio.get_running_loop().time() - began
        writer.close()
        await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 201")
    assert took_s >= 0.045
    assert counts.told()["SMS"]["count"] == 1


def test_the_limit_of_fan_out_is_of_the_very_commands_that_its_scripts_ran() -> None:
    heard = [
        b"+OK",
        b'1700000000.1 [0 unix:/redis.sock] "EVALSHA" "abc" "1" "tocsin:facts"',
        b'1700000000.2 [0 lua] "TIME"',
        b'1700000000.3 [0 lua] "LPUSH" "notifications:u1" "{\\"id\\":\\"a\\\\b\\"}\\xc3\\xa4"',
        b'1700000000.4 [0 lua] "XADD" "tocsin:facts" "1700000000000-4" "d" "[]"',
        b'1700000000.5 [0 unix:/redis.sock] "ECHO" "the end"',
    ]
    calls = [call for call in fan_out._calls(heard) if call]
    assert calls == [
        [
            (b"LPUSH", b"notifications:u1", '{"id":"a\\b"}ä'.encode()),
            (b"XADD", b"tocsin:facts", b"*", b"d", b"[]"),
        ]
    ]


def test_pages_and_charts_say_what_the_results_say() -> None:
    for path, text in page.made().items():
        assert path.read_text(encoding="utf-8") == text, f"{path} is not of bench/results: python bench/page.py"


def test_the_newest_of_each_figure_counts_and_no_trial_does(tmp_path: Path) -> None:
    def kept(name: str, at: str, ours: float, **more: int) -> None:
        stages = [report.under("idle_memory", "MB", [ours], 120).as_json()]
        (tmp_path / name).write_text(json.dumps({"stages": stages, "at": at, **more}))

    kept("b.json", "2026-01-02T00:00:00Z", 97)
    kept("a.json", "2026-01-01T00:00:00Z", 99)
    kept("c.json", "2026-01-03T00:00:00Z", 12, people=10)
    assert page.newest(tmp_path)["idle_memory"].figure["ours"] == 97


def test_a_chart_shows_every_curve_and_its_highest_point() -> None:
    points = [(float(second), float(second % 97)) for second in range(1_000)]
    series = watch.thinned({"redis": points, "postgres & more": points[:5]}, most=100)
    assert len(series["redis"]) <= 100
    assert max(series["redis"], key=lambda point: point[1])[1] == 96
    drawn = charts.lines("Memory", series, x_title="seconds", y_title="MB")
    assert drawn.count("<polyline") == 2
    assert "postgres &amp; more" in drawn
    bars = charts.bars("Items", [charts.Bar("Tocsin", 50.0, "50"), charts.Bar("none", 0.0, "0")], logarithmic=True)
    assert bars.count("<rect") == 3
