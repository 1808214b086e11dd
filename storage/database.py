"""Peewee's database as Tocsin uses it: any thread works on a connection that it was lent, and errors are judged here.

Functions of storage/ that speak SQL take no connection: they run inside `Postgres.call` (or `lent`, for tools), where
the models of models.py and `cursor()` mean the connection of that call.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg2
from peewee import InterfaceError, OperationalError, PeeweeException, PostgresqlDatabase

from tocsin.domain.errors import PostgresAway, TocsinError

_CONFLICTS: Final = frozenset({"40001", "40P01"})
"""Codes of a transaction that met another one and may simply be tried again."""

_HELD: Final = "55P03"
_SLOW: Final = _CONFLICTS | {_HELD, "57014", "25P03", "25P04"}
# Read-only, or a schema that is missing or older than this program.
_AWAY: Final = frozenset({"25006", "42P01", "42703", "42883"})
# Connection, authentication, resources, an operator's intervention, system errors, a database or schema not there.
_AWAY_CLASSES: Final = ("08", "28", "53", "57", "58", "3D", "3F")
_REFUSED_CLASSES: Final = ("21", "22", "23", "54")


class Refused(TocsinError):
    """Postgres will never take this as data, however often it is told."""


class TooSlow(PostgresAway):
    """Postgres serves, but this call took too long or met others too often."""


class LentDatabase(PostgresqlDatabase):
    """A database that opens nothing itself: each thread uses the connection that it was lent."""

    def __init__(self) -> None:
        self._lent = threading.local()
        super().__init__("tocsin")

    @contextmanager
    def lent(self, connection: Any) -> Iterator[None]:
        """Makes `connection`, which is in autocommit mode, this thread's until the end."""
        self._lent.connection = connection
        self.connect()
        try:
            yield
        finally:
            self.dispose()
            self._lent.connection = None

    def _connect(self) -> Any:
        connection = getattr(self._lent, "connection", None)
        if connection is None:
            raise InterfaceError("this is to be run by Postgres.call")
        return connection


database: Final = LentDatabase()


def cursor() -> Any:
    """A psycopg2 cursor on this call's connection."""
    connection: Any = database.connection()  # type: ignore[no-untyped-call]
    return connection.cursor()


@contextmanager
def judging() -> Iterator[None]:
    """Raises errors of Postgres as what they mean to a caller."""
    try:
        yield
    except (psycopg2.Error, PeeweeException) as error:
        judgement = judged(error)
        if judgement is None:
            raise
        raise judgement from error


def judged(error: BaseException) -> TocsinError | None:
    """What an error of Postgres means to a caller; None for one that is our own defect. Its text names codes and
    columns, never values."""
    original = _original(error)
    code = getattr(original, "pgcode", None)
    if code is None:
        return PostgresAway("the connection to Postgres is lost") if _is_loss(original) else None
    if code in _SLOW:
        return TooSlow(f"Postgres is too busy for this ({code})")
    if code in _AWAY or code.startswith(_AWAY_CLASSES):
        return PostgresAway(f"Postgres does not serve ({code})")
    if code.startswith(_REFUSED_CLASSES):
        return Refused(f"Postgres refuses the data ({_place(original, code)})")
    return None


def is_conflict(error: BaseException) -> bool:
    """Whether the transaction met another one and may be tried again."""
    return getattr(_original(error), "pgcode", None) in _CONFLICTS


def is_held(error: BaseException) -> bool:
    """Whether others held for too long what the transaction had to have alone."""
    return getattr(_original(error), "pgcode", None) == _HELD


def _is_loss(error: BaseException) -> bool:
    """Whether an error without a code is the connection's. One that breaks as its server is killed is now and then
    told as a plain DatabaseError; what is wrong with a statement is told as one of its kinds."""
    plain = type(error) is psycopg2.DatabaseError
    return plain or isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError | OperationalError)


def _original(error: BaseException) -> BaseException:
    return getattr(error, "orig", None) or error if isinstance(error, PeeweeException) else error


def _place(error: Any, code: str) -> str:
    diagnostics = error.diag
    names = (diagnostics.table_name, diagnostics.column_name, diagnostics.constraint_name)
    return ", ".join([code, *(name for name in names if name)])
