"""COPY's text format: rows as lines of tab-separated fields."""

import io
from collections.abc import Iterable
from typing import Any, Final

NULL: Final = r"\N"


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


def copy_in(query: Any, table: str, lines: Iterable[str]) -> None:
    """Sends `lines`, each without its end, into `table`, with a psycopg2 cursor."""
    query.copy_expert(f"copy {table} from stdin", io.StringIO("\n".join(lines)))
