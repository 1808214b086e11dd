"""Brings the schema up to date: each file of migrations/ once, in the order of their names, all or none.

Run at start by every process and by `tocsin migrate`; an advisory lock lets one do it while the others wait. After it
each span of time that is near has its partitions (partitions.py).
"""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final

import psycopg2
from loguru import logger

from tocsin.domain.errors import PostgresAway, SettingError
from tocsin.domain.periods import Period
from tocsin.storage import partitions
from tocsin.storage.connecting import connect
from tocsin.storage.database import TooSlow, is_held, judged
from tocsin.storage.transactions import patiently

_STEPS: Final = files("tocsin.storage.migrations")
_CONNECT_MS: Final = 5_000
# Building an index on a large table takes as long as it takes.
_NO_LIMIT: Final = 0
_PATIENCE_MS: Final = 3_000
_PAUSES_S: Final = (1.0, 2.0, 4.0)

OLDEST: Final = 15
"""The oldest major version of Postgres that Tocsin is tried with."""


def migrate(url: str, steps: Traversable = _STEPS, *, period: Period = Period.MONTH) -> list[str]:
    """Applies what is missing and answers its names; makes the partitions that should be there, of `period` each.
    Waits for who does the same, but not for long for who uses a table that has to be changed, for everybody else waits
    behind. Raises PostgresAway, also in that case, and SettingError for a Postgres that is too old."""
    try:
        with _connection(url) as connection, connection.cursor() as query:
            _refuse_too_old(connection.server_version)
            _take_turn(query)
            applied = patiently(lambda: _apply(query, steps), _PAUSES_S)
            partitions.make_ahead(query, period, time.time_ns() // 1_000_000)
            return applied
    except TooSlow as error:
        raise TooSlow(
            f"the schema could not be changed, for others go on using a table of it ({error});"
            " pg_stat_activity shows whose transactions have lasted long: end those and run `tocsin migrate` again"
        ) from error


def _apply(query: Any, steps: Traversable) -> list[str]:
    query.execute("begin")
    try:
        query.execute(f"set local lock_timeout = {_PATIENCE_MS}")
        query.execute(
            "create table if not exists schema_migrations"
            " (name text primary key, applied_at timestamptz not null default now())"
        )
        missing = _missing(query, steps)
        for name in missing:
            query.execute(steps.joinpath(name).read_text(encoding="utf-8"))
            query.execute("insert into schema_migrations (name) values (%s)", (name,))
    except psycopg2.Error as error:
        with suppress(psycopg2.Error):
            query.execute("rollback")
        if is_held(error):
            logger.warning("the schema waits for a table that others use; everybody behind goes on meanwhile")
        raise
    query.execute("commit")
    return missing


def _take_turn(query: Any) -> None:
    """Until the connection ends."""
    query.execute("select pg_try_advisory_lock(%s)", (partitions.LOCK,))
    if not query.fetchone()[0]:
        logger.info("another process is changing the schema, and is waited for")
        query.execute("select pg_advisory_lock(%s)", (partitions.LOCK,))


def pending(url: str) -> list[str]:
    """The names of what `migrate` would apply. Raises PostgresAway."""
    with _connection(url) as connection, connection.cursor() as query:
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
def _connection(url: str) -> Iterator[Any]:
    """One in autocommit mode."""
    try:
        opened = connect(url, connect_timeout_ms=_CONNECT_MS, statement_timeout_ms=_NO_LIMIT)
        with closing(opened) as connection:
            yield connection
    except psycopg2.Error as error:
        judgement = judged(error)
        if isinstance(judgement, PostgresAway):
            raise judgement from error
        raise
