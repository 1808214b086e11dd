"""Cursors: where a page ends, as text that callers hand back untouched."""

from collections.abc import Callable, Sequence
from typing import TypeVar
from uuid import UUID

from tocsin.http.problems import BAD_CURSOR, Problem

_Entry = TypeVar("_Entry")

_SEPARATOR = "."


def cursor_of(at_ms: int, identifier: UUID) -> str:
    """The cursor of an entry that is ordered by time and id."""
    return f"{at_ms}{_SEPARATOR}{identifier}"


def page_of(
    found: Sequence[_Entry], limit: int, place: Callable[[_Entry], object]
) -> tuple[Sequence[_Entry], str | None]:
    """The first `limit` of what was found, where one more was asked for; and where the next page goes on, None where
    nothing is left. `place` is what an entry is ordered by."""
    page = found[:limit]
    return page, str(place(page[-1])) if len(found) > limit else None


def place_of(cursor: str, field: str = "cursor") -> tuple[int, UUID]:
    """The reverse of `cursor_of`. Raises Problem `bad_cursor`."""
    first, _, second = cursor.partition(_SEPARATOR)
    if not (first.isascii() and first.isdigit() and len(first) <= 15):
        raise Problem(BAD_CURSOR, field=field)
    return int(first), id_of(second, field)


def id_of(cursor: str, field: str = "cursor") -> UUID:
    """A cursor that is an id. Raises Problem `bad_cursor`."""
    try:
        return UUID(cursor)
    except ValueError as error:
        raise Problem(BAD_CURSOR, field=field) from error
