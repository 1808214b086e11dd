"""What commands show: nothing of a caller's steers the terminal, and programs get JSON alone."""

import io
import json

import pytest
from rich.console import Console

from tocsin.cli.screen import Screen, plain
from tocsin.cli.told import progress_line


def shown(*rows: tuple[object, ...]) -> str:
    written = io.StringIO()
    Screen(console=Console(file=written, width=80)).table(["one", "two"], rows)
    return written.getvalue()


@pytest.mark.parametrize("steering", ["\x1b[2J", "\x07", "\r", "\x9b31m", "\u202e", "\u200b"])
def test_a_text_cannot_steer_the_terminal(steering: str) -> None:
    assert not set(steering[:1]) & set(plain(f"before{steering}after"))
    assert steering[:1] not in shown((f"before{steering}after", 1))


def test_lines_and_joined_emoji_stay_what_they_are() -> None:
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    assert plain(f"one\ntwo\t{family}") == f"one\ntwo\t{family}"


def test_what_looks_like_markup_is_shown_as_it_is() -> None:
    assert "[bold]not bold[/bold]" in shown(("[bold]not bold[/bold]", None))


def test_nothing_is_shown_as_a_dash_and_zero_as_zero() -> None:
    written = shown((None, 0))
    assert "–" in written
    assert "0" in written


def test_an_event_that_has_no_deliveries_yet_is_told_without_any() -> None:
    standings = ("sent", "delivered", "failed", "cancelled", "uncertain", "waiting")
    counts = {"expected": None, "notifications": 0, "read": 0, "missing": None, "unknown": 0, "suppressed": {}}
    told = progress_line({"status": "PENDING", "counts": counts | dict.fromkeys(standings, 0)})
    assert told == "PENDING: recipients not resolved yet, 0 notifications, 0 read"


def test_with_json_only_the_answer_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(as_json=True)
    screen.tell("for people")
    screen.table(["one"], [("for people",)])
    screen.answer({"name": "Aśa"})
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"name": "Aśa"}
    assert captured.err == ""


def test_without_json_the_answer_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    screen.tell("for people")
    screen.answer({"for": "programs"})
    assert capsys.readouterr().out == "for people\n"
