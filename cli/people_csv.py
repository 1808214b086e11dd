"""Reads a table of people, line by line: what can be imported, and which lines cannot with the reason."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tocsin.cli.csv_rows import BadLine, NotATable, Row, read_rows
from tocsin.domain.addresses import USER_ID, known_timezone, normal_email, normal_phone
from tocsin.domain.attributes import GREATEST, is_name
from tocsin.domain.audience import fit_roles, fit_topic_key
from tocsin.domain.errors import InvalidInput

COLUMNS: Final = ("id", "email", "phone", "name", "locale", "timezone", "active", "topics", "attributes")
_ATTRIBUTE: Final = "attributes."
_YES_OR_NO: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_CHECKS: Final = {"email": normal_email, "phone": normal_phone, "timezone": known_timezone}
_is_number: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?").fullmatch
_REMEMBERED: Final = 100_000
"""How many ids are kept to find two lines with the same: so that memory stays the same, however long the file."""

__all__ = ["BadLine", "NotATable", "Person", "read_people"]


@dataclass(frozen=True, slots=True)
class Person:
    """A line that can be imported. `details` has only what the line gives; `topics` are the roles by topic."""

    line: int
    id: str
    details: Mapping[str, Any]
    topics: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What it says something of."""
        return self.id


def read_people(lines: Iterable[str]) -> Iterator[Person | BadLine]:
    """The people of a table whose first line names its columns. Raises NotATable for a header that cannot be used."""
    seen: OrderedDict[str, int] = OrderedDict()
    for row in read_rows(lines, _fit_column, ["id"]):
        yield row if isinstance(row, BadLine) else _person(row, seen)


def _fit_column(name: str) -> str:
    if name.lower() in COLUMNS:
        return name.lower()
    attribute, kind = _attribute_of(name)
    if attribute and is_name(attribute) and kind in _ATTRIBUTE_KINDS:
        return name
    if attribute:
        kinds = ", ".join(kind for kind in _ATTRIBUTE_KINDS if kind)
        raise NotATable(f"the column {name!r} is no attribute; write {_ATTRIBUTE}<name>, or with one of :{kinds}")
    raise NotATable(f"there is no column {name.lower()!r}; the columns are {', '.join(COLUMNS)} and {_ATTRIBUTE}<name>")


def _attribute_of(column: str) -> tuple[str, str]:
    """The attribute that a column gives and what its values are; empty where it gives none."""
    if not column.lower().startswith(_ATTRIBUTE):
        return "", ""
    name, _, kind = column[len(_ATTRIBUTE) :].partition(":")
    return name, kind.lower()


def _person(row: Row, seen: OrderedDict[str, int]) -> Person | BadLine:
    person = row.cells.get("id", "")
    if not USER_ID.fullmatch(person):
        return BadLine(row.line, "id", "it is not 1 to 128 of letters, digits and . _ : @ + -")
    if person in seen:
        return BadLine(row.line, "id", f"line {seen[person]} has the same id")
    details: dict[str, Any] = {}
    for column, text in row.cells.items():
        try:
            _put(details, column, text)
        except InvalidInput as error:
            return BadLine(row.line, column, error.detail)
    seen[person] = row.line
    if len(seen) > _REMEMBERED:
        seen.popitem(last=False)
    return Person(row.line, person, details, details.pop("topics", {}))


def _put(details: dict[str, Any], column: str, text: str) -> None:
    attribute, kind = _attribute_of(column)
    if attribute:
        details.setdefault("attributes", {})[attribute] = _ATTRIBUTE_KINDS[kind](text, column)
    elif column == "attributes":
        details["attributes"] = _object(text, column) | details.get("attributes", {})
    elif column == "topics":
        details[column] = _topics(text, column)
    elif column == "active":
        details[column] = _truth(text, column)
    elif column != "id":
        details[column] = _CHECKS[column](text, column) if column in _CHECKS else text


def _truth(text: str, column: str) -> bool:
    if text.lower() not in _YES_OR_NO:
        raise InvalidInput(column, "it is neither true nor false")
    return _YES_OR_NO[text.lower()]


def _number(text: str, column: str) -> int | float:
    if not _is_number(text):
        raise InvalidInput(column, "it is not a number")
    number = float(text)
    if not abs(number) <= GREATEST:
        raise InvalidInput(column, f"it is not within {GREATEST:.0e}")
    return number if set(text) & set(".eE") else int(number)


def _list(text: str, column: str) -> list[str]:
    return [part.strip() for part in text.split("|") if part.strip()]


def _topics(text: str, column: str) -> dict[str, Sequence[str]]:
    """Of "family:17=head/elder|region:west" the roles by topic."""
    found: dict[str, Sequence[str]] = {}
    for part in _list(text, column):
        topic, _, roles = part.partition("=")
        wanted = [role.strip() for role in roles.split("/") if role.strip()]
        found[fit_topic_key(topic.strip(), column)] = fit_roles(wanted, column)
    return found


def _object(text: str, column: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
        json.dumps(found, allow_nan=False)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidInput(column, 'it is not a JSON object, such as {"gotra": "Sharma"}')
    return found


_ATTRIBUTE_KINDS: Final[Mapping[str, Callable[[str, str], Any]]] = {
    "": lambda text, _: text,
    "number": _number,
    "boolean": _truth,
    "list": _list,
}
"""What the values of an attribute's column are, by what stands behind its name."""
