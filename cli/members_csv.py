"""Reads a table of members, line by line: what can be imported, and which lines cannot with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tocsin.cli.csv_rows import BadLine, NotATable, read_rows
from tocsin.domain.addresses import fit_user_id
from tocsin.domain.audience import fit_roles, fit_topic_key
from tocsin.domain.errors import InvalidInput

COLUMNS: Final = ("topic", "user", "roles", "kind")


@dataclass(frozen=True, slots=True)
class Membership:
    """A line that can be imported, as `POST /api/memberships` takes it."""

    line: int
    given: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        """What it says something of."""
        return self.given["topic"], self.given["userId"]


def read_members(lines: Iterable[str], topic: str | None = None) -> Iterator[Membership | BadLine]:
    """The members of a table; with `topic` all are of that one, and no column says it. Raises NotATable for a header
    that cannot be used."""
    needed = ["user"] if topic else ["topic", "user"]
    for row in read_rows(lines, _fit_column, needed):
        yield row if isinstance(row, BadLine) else _membership(row.line, {"topic": topic or ""} | dict(row.cells))


def _fit_column(name: str) -> str:
    if name.lower() not in COLUMNS:
        raise NotATable(f"there is no column {name.lower()!r}; the columns are {', '.join(COLUMNS)}")
    return name.lower()


def _membership(line: int, cells: Mapping[str, str]) -> Membership | BadLine:
    column = ""
    try:
        column = "topic"
        given: dict[str, Any] = {"topic": fit_topic_key(cells.get(column, ""), column)}
        column = "user"
        given["userId"] = fit_user_id(cells.get(column, ""), column)
        column = "roles"
        given["roles"] = fit_roles([part.strip() for part in cells.get(column, "").split("|") if part.strip()], column)
    except InvalidInput as error:
        return BadLine(line, column, error.detail)
    return Membership(line, given | ({"kind": cells["kind"]} if "kind" in cells else {}))
