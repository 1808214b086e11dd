"""What a command shows: tables and lines for people, one JSON document for programs.

Texts of callers pass through `plain`, so that a title cannot steer the terminal of whoever looks at it.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from tocsin.domain.delivery import Status

_PIPE_WIDTH: Final = 200
"""The columns of a table that is not on a terminal: wide enough that no id is broken."""

_STYLES: Final[Mapping[str, str]] = {
    Status.SCHEDULED: "cyan",
    Status.QUEUED: "cyan",
    Status.RETRYING: "yellow",
    Status.SENDING: "cyan",
    Status.UNCERTAIN: "yellow",
    Status.SUPPRESSED: "bright_black",
    Status.CANCELLED: "bright_black",
    Status.FAILED: "red",
    Status.DEAD: "red",
    Status.SENT: "green",
    Status.DELIVERED: "green",
    Status.BOUNCED: "red",
}


class Screen:
    """Where one command writes. With `as_json` only `answer` writes to standard output."""

    def __init__(self, *, as_json: bool = False, console: Console | None = None) -> None:
        self.as_json = as_json
        self.console = console or _console(stderr=as_json)

    def tell(self, line: RenderableType = "", style: str | None = None) -> None:
        """One line for people."""
        if not self.as_json:
            self.console.print(line, style=style, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> None:
        """A table for people; a cell is any text, or a rich Text that is already styled."""
        if self.as_json:
            return
        if title:
            self.tell(Text(plain(title), style="bold"))
        table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*map(cell, row))
        self.console.print(table)

    def progress(self) -> Progress:
        """How far something is, while it lasts; on a terminal only."""
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=self.as_json or not self.console.is_terminal,
        )

    def answer(self, document: Any) -> None:
        """The document for programs."""
        if self.as_json:
            click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def cell(value: Any) -> Text:
    """A value as it stands in a table; nothing is shown as a dash."""
    if isinstance(value, Text):
        return value
    return Text("–", style="bright_black") if value in {None, ""} else Text(plain(str(value)))


def status_text(status: str) -> Text:
    """A status in its colour; the word itself says the same, for those who see no colours."""
    return Text(plain(status), style=_STYLES.get(status, ""))


def plain(text: str) -> str:
    """`text` without characters that steer a terminal or turn the direction of writing (Unicode Cc and Cf)."""
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character in "\n\t":
        return character
    kind = unicodedata.category(character)
    # The zero-width joiner is a Cf that emoji and Indic scripts need.
    return "\N{REPLACEMENT CHARACTER}" if kind in {"Cc", "Cf"} and character not in "\u200c\u200d" else character


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else _PIPE_WIDTH)
