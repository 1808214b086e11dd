"""Reads a table line by line, in constant memory: each line by its columns, or the reason why it cannot be read."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

_DELIMITERS: Final = ",;\t"


class NotATable(ValueError):
    """The file as a whole cannot be read: names the reason."""


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that cannot be imported: which column is wrong, why, and what to do where that is not plain. `line` counts
    from 1, the header included."""

    line: int
    column: str
    reason: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A line, by its columns; cells that are empty are left out."""

    line: int
    cells: Mapping[str, str]


def read_rows(lines: Iterable[str], fit_column: Callable[[str], str], needed: Iterable[str]) -> Iterator[Row | BadLine]:
    """The lines of a table whose first line names its columns; empty ones are left out. `fit_column` makes a column's
    name normal. Raises NotATable for a header that cannot be used, as `fit_column` may."""
    source = iter(lines)
    header = next(source, "").removeprefix("\ufeff")
    delimiter = max(_DELIMITERS, key=header.count)
    try:
        names = next(csv.reader([header], delimiter=delimiter), [])
    except csv.Error as error:
        raise NotATable(f"its first line is not proper CSV ({error})") from error
    columns = _columns(names, fit_column, needed)
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 2
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadLine(line, "", f"it is not proper CSV ({error})")
            continue
        if len(cells) != len(columns) and any(cell.strip() for cell in cells):
            yield BadLine(line, "", f"it has {len(cells)} cells where the header has {len(columns)}")
        elif any(cell.strip() for cell in cells):
            given = zip(columns, cells, strict=True)
            yield Row(line, {name: text.strip() for name, text in given if text.strip()})


def _columns(header: list[str], fit_column: Callable[[str], str], needed: Iterable[str]) -> list[str]:
    if not any(name.strip() for name in header):
        raise NotATable("it has no first line that names the columns")
    columns = [fit_column(name.strip()) for name in header]
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise NotATable(f"the column {twice[0]!r} stands there twice")
    if missing := [name for name in needed if name not in columns]:
        raise NotATable(f"the column {missing[0]!r} is missing")
    return columns
