"""Brings the schema up to date: each file of migrations/ once, in the order of their names, all or none.

Run at start by every process and by `tocsin migrate`; an advisory lock lets one do it while the others wait. After it
each span of time that is near has its partitions (partitions.py).
"""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final

import psycopg2

from tocsin.domain.errors import PostgresAway, SettingError
from tocsin.domain.periods import Period
from tocsin.storage import partitions
from tocsin.storage.connecting import connect
from tocsin.storage.database import judged

_STEPS: Final = files("tocsin.storage.migrations")
_CONNECT_MS: Final = 5_000
# Building an index on a large table takes as long as it takes.
_NO_LIMIT: Final = 0

OLDEST: Final = 15
"""The oldest major version of Postgres that Tocsin is tried with."""


def migrate(url: str, steps: Traversable = _STEPS, *, period: Period = Period.MONTH) -> list[str]:
    """Applies what is missing and answers its names; makes the partitions that should be there, of `period` each.
    Raises PostgresAway, and SettingError for a Postgres that is too old."""
    with _transaction(url) as query:
        _refuse_too_old(query.connection.server_version)
        query.execute("select pg_advisory_xact_lock(%s)", (partitions.LOCK,))
        query.execute(
            "create table if not exists schema_migrations"
            " (name text primary key, applied_at timestamptz not null default now())"
        )
        missing = _missing(query, steps)
        for name in missing:
            query.execute(steps.joinpath(name).read_text(encoding="utf-8"))
            query.execute("insert into schema_migrations (name) values (%s)", (name,))
        partitions.make_ahead(query, period, time.time_ns() // 1_000_000)
        return missing


def pending(url: str) -> list[str]:
    """The names of what `migrate` would apply. Raises PostgresAway."""
    with _transaction(url) as query:
        query.execute("select to_regclass('schema_migrations') is not null")
        return _missing(query, _STEPS) if query.fetchone()[0] else _names(_STEPS)


def _refuse_too_old(version: int) -> None:
    if version < OLDEST * 10_000:
        raise SettingError(f"postgres.url: PostgreSQL {version // 10_000} is too old; give one from {OLDEST} on")


def _missing(query: Any, steps: Traversable) -> list[str]:
    query.execute("select name from schema_migrations")
    applied = {name for (name,) in query.fetchall()}
    return [name for name in _names(steps) if name not in applied]


def _names(steps: Traversable) -> list[str]:
    return sorted(each.name for each in steps.iterdir() if each.name.endswith(".sql"))


@contextmanager
def _transaction(url: str) -> Iterator[Any]:
    try:
        opened = connect(url, connect_timeout_ms=_CONNECT_MS, statement_timeout_ms=_NO_LIMIT)
        with closing(opened) as connection:
            connection.autocommit = False
            with connection, connection.cursor() as query:
                yield query
    except psycopg2.Error as error:
        judgement = judged(error)
        if isinstance(judgement, PostgresAway):
            raise judgement from error
        raise
