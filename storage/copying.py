"""COPY's text format, and the ways that many rows take into a table.

Where all rows are new they are copied into their table as they are, which costs three quarters of a merge. Where one is
there all the same, or some may be, all go by COPY into a temporary table, and from there by the statement that merges:
never some this way and some that, for then two persisters could each wait for a row of the other.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, Final

import psycopg2
from psycopg2.errors import UniqueViolation

from tocsin.storage.counting import Merge
from tocsin.storage.database import Refused
from tocsin.storage.moments import moment_of

NULL: Final = r"\N"
_LINES_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Target:
    """A table, the columns that lines fill, in their order, and what merges incoming_<table> into it."""

    table: str
    columns: str
    merge: Merge


def put(query: Any, target: Target, lines: Callable[[], Iterator[str]], *, new: bool) -> bool:
    """Writes rows with a psycopg2 cursor in a transaction. `lines` makes them anew each time, sorted by key, without
    their ends; `new` says that nobody should have told of them before. Answers whether nobody had, and all are copied:
    then they are to be counted yet (counting.py). Raises Refused where one cannot be made."""
    if new and _copied(query, target, lines()):
        return True
    incoming = f"incoming_{target.table}"
    query.execute(f"create temporary table if not exists {incoming} (like {target.table}) on commit delete rows")
    _copy(query, f"{incoming} ({target.columns})", lines())
    for statement in target.merge.statements(query.connection.server_version):
        query.execute(statement)
    return False


def field(value: str | None) -> str:
    """A text as COPY takes it."""
    if value is None:
        return NULL
    if "\\" in value:
        value = value.replace("\\", "\\\\")
    if "\n" in value or "\t" in value or "\r" in value:
        value = value.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    return value


def number(value: int | None) -> str:
    """A whole number as COPY takes it."""
    return NULL if value is None else str(value)


@lru_cache(maxsize=4_096)
def moment(ms: int | None) -> str:
    """A time in ms as COPY takes a timestamptz. Raises OverflowError past the year 9999."""
    return NULL if ms is None else moment_of(ms).isoformat()


def _copied(query: Any, target: Target, lines: Iterator[str]) -> bool:
    """False, and nothing is changed, where one of the rows is there already."""
    query.execute("savepoint before_copy")
    try:
        _copy(query, f"{target.table} ({target.columns})", lines)
    except UniqueViolation:
        query.execute("rollback to savepoint before_copy")
        return False
    query.execute("release savepoint before_copy")
    return True


def _copy(query: Any, into: str, lines: Iterator[str]) -> None:
    stream = _Stream(lines)
    try:
        query.copy_expert(f"copy {into} from stdin", stream)
    except psycopg2.Error as error:
        if stream.failure is None:
            raise
        raise Refused(f"a fact makes no sense ({type(stream.failure).__name__})") from error


class _Stream:
    """Lines as a file that is written while it is read: Postgres takes in the last ones while the next are made. What
    is raised meanwhile comes back as an error of Postgres's; `failure` keeps what it was."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self.failure: Exception | None = None

    def read(self, _: int) -> bytes:
        """Some of the lines, whatever the size asked for; nothing at the end."""
        try:
            some = "\n".join(islice(self._lines, _LINES_AT_ONCE)).encode()
        except Exception as failure:
            self.failure = failure
            raise
        return some + b"\n" if some else b""
