"""Reads a table of people, line by line: what can be imported, and which lines cannot with the reason."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from tocsin.domain.addresses import USER_ID, known_timezone, normal_email, normal_phone
from tocsin.domain.errors import InvalidInput

COLUMNS: Final = ("id", "email", "phone", "name", "locale", "timezone", "active")
_DELIMITERS: Final = ",;\t"
_YES_OR_NO: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_CHECKS: Final = {"email": normal_email, "phone": normal_phone, "timezone": known_timezone}


class NotATable(ValueError):
    """The file as a whole cannot be read: names the reason."""


@dataclass(frozen=True, slots=True)
class Person:
    """A line that can be imported. `details` has only what the line gives."""

    line: int
    id: str
    details: Mapping[str, str | bool]


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that cannot. `line` counts from 1, the header included."""

    line: int
    column: str
    reason: str


def read_people(lines: Iterable[str]) -> Iterator[Person | BadLine]:
    """The people of a table whose first line names its columns. Raises NotATable for a header that cannot be used."""
    source = iter(lines)
    header = next(source, "").removeprefix("\ufeff")
    delimiter = max(_DELIMITERS, key=header.count)
    columns = _columns(next(csv.reader([header], delimiter=delimiter), []))
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    seen: dict[str, int] = {}
    while True:
        line = reader.line_num + 2
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadLine(line, "", f"it is not proper CSV ({error})")
            continue
        if any(cell.strip() for cell in cells):
            yield _person(line, columns, cells, seen)


def _columns(header: list[str]) -> list[str]:
    columns = [name.strip().lower() for name in header]
    if not any(columns):
        raise NotATable("it has no first line that names the columns")
    if unknown := [name for name in columns if name not in COLUMNS]:
        raise NotATable(f"there is no column {unknown[0]!r}; the columns are {', '.join(COLUMNS)}")
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise NotATable(f"the column {twice[0]!r} stands there twice")
    if "id" not in columns:
        raise NotATable("the column 'id' is missing")
    return columns


def _person(line: int, columns: list[str], cells: list[str], seen: dict[str, int]) -> Person | BadLine:
    if len(cells) != len(columns):
        return BadLine(line, "", f"it has {len(cells)} cells where the header has {len(columns)}")
    given = {name: text.strip() for name, text in zip(columns, cells, strict=True) if text.strip()}
    person = given.pop("id", "")
    if not USER_ID.fullmatch(person):
        return BadLine(line, "id", "it is not 1 to 128 of letters, digits and . _ : @ + -")
    if person in seen:
        return BadLine(line, "id", f"line {seen[person]} has the same id")
    details: dict[str, str | bool] = {}
    for column, text in given.items():
        try:
            details[column] = _value(column, text)
        except InvalidInput as error:
            return BadLine(line, column, error.detail)
    seen[person] = line
    return Person(line, person, details)


def _value(column: str, text: str) -> str | bool:
    if column == "active":
        if text.lower() not in _YES_OR_NO:
            raise InvalidInput(column, "it is neither true nor false")
        return _YES_OR_NO[text.lower()]
    return _CHECKS[column](text, column) if column in _CHECKS else text
