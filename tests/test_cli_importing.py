"""Importing a table: what counts where lines say the same twice, and what is told where it breaks off."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click
import pytest

from tests.test_cli_people import read
from tocsin.cli import importing
from tocsin.cli.importing import Importer, Sent, bad_of, import_table, tell_bad
from tocsin.cli.members_csv import Membership, read_members
from tocsin.cli.people_csv import BadLine, Person
from tocsin.cli.screen import Screen


@pytest.fixture(autouse=True)
def one_line_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "_BATCH", 1)


def table_of(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "members.csv"
    path.write_text("topic,user,roles\n" + "\n".join(lines) + "\n")
    return path


def test_of_two_lines_of_one_member_the_last_is_sent_once_the_first_is_done(tmp_path: Path) -> None:
    told: list[str] = []
    first_ends = asyncio.Event()

    async def send(lines: Sequence[Membership]) -> Sent:
        (line,) = lines
        told.append(f"{line.line} begins")
        if line.line == 2:
            await first_ends.wait()
        told.append(f"{line.line} ends")
        if line.line == 3:
            first_ends.set()
        return Sent(Counter(added=1), [])

    table = table_of(tmp_path, "t,asha,head", "t,bina,", "t,asha,elder")
    done = asyncio.run(import_table(Screen(as_json=True), table, read_members, Importer(send, None)))
    assert done.counts["added"] == 3
    assert told.index("4 begins") > told.index("2 ends")


def test_what_breaks_off_tells_its_counts_and_how_far_it_came(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def send(lines: Sequence[Membership]) -> Sent:
        if lines[0].line == 4:
            raise click.ClickException("The server does not answer.")
        # Those that are under way beside it are done all the same.
        await asyncio.sleep(0)
        return Sent(Counter(added=1), [])

    table = table_of(tmp_path, *(f"t,u{number}," for number in range(8)))
    done = asyncio.run(import_table(Screen(), table, read_members, Importer(send, None)))
    assert (done.counts["added"] >= 2, done.undone, done.is_whole) == (True, 4, False)
    assert bad_of(done)["brokeOff"] == {"line": 4, "reason": "The server does not answer."}
    tell_bad(Screen(), done)
    assert "All lines before line 4 are done" in capsys.readouterr().out


def test_what_cannot_begin_says_why_and_nothing_else(tmp_path: Path) -> None:
    async def send(_: Sequence[Membership]) -> Sent:
        raise click.ClickException("The server does not answer.")

    table = table_of(tmp_path, "t,asha,head")
    with pytest.raises(click.ClickException, match="does not answer"):
        asyncio.run(import_table(Screen(), table, read_members, Importer(send, None)))


def test_a_table_that_turns_out_not_to_be_text_keeps_what_was_imported(tmp_path: Path) -> None:
    async def send(_: Sequence[Membership]) -> Sent:
        return Sent(Counter(added=1), [])

    table = tmp_path / "members.csv"
    table.write_bytes(b"topic,user\n" + b"t,asha\n" * 20_000 + "t,Zoë\n".encode("latin-1"))
    done = asyncio.run(import_table(Screen(), table, read_members, Importer(send, None)))
    assert "save it as UTF-8" in json.dumps(bad_of(done))
    assert done.counts["added"] == done.undone - 2 > 1_000


def test_a_person_may_come_with_topics() -> None:
    good, bad = read("id,topics\n", "u1,family:17=head/elder|region:west\n", "u2,family 17\n")
    assert good == Person(2, "u1", {}, {"family:17": ("elder", "head"), "region:west": ()})
    assert isinstance(bad, BadLine)
    assert (bad.column, "letters" in bad.reason) == ("topics", True)
