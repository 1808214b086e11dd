"""What `tocsin doctor` asks a Postgres about itself and about what should be looked at in it."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final

import psycopg2

from tocsin.domain.errors import PostgresAway
from tocsin.storage.connecting import connect
from tocsin.storage.database import judged
from tocsin.storage.id_ranges import LAST_MS
from tocsin.storage.installation import MADE
from tocsin.storage.partitions import Partition, partitions, rows_in

_CONNECT_MS: Final = 5_000
_STATEMENT_MS: Final = 10_000
_MOST_COUNTED: Final = 10_000


@dataclass(frozen=True, slots=True)
class PostgresState:
    """What a Postgres says of itself."""

    version: str
    writable: bool
    keys: tuple[tuple[str, int], ...]
    """The names of API keys that are not revoked, and when each was made, in ms."""
    bad_facts: int
    """How many facts were refused as data and wait for a person."""
    clock_off_ms: int = 0
    """How far Postgres's clock is ahead of this machine's."""
    partitions: tuple[Partition, ...] = ()
    strays: int = 0
    """How many rows lie in the default partitions, counted up to 10,000 each."""
    installation: str | None = None
    """Whose data this is (installation.py); None before the schema is there."""

    @property
    def major(self) -> int:
        """The 18 of "18.4" and of "18beta1"."""
        digits = "".join(takewhile(str.isdigit, self.version))
        return int(digits)


def inspect_postgres(url: str) -> PostgresState:
    """Asks the Postgres at `url` about itself. Raises PostgresAway."""
    try:
        opened = connect(url, connect_timeout_ms=_CONNECT_MS, statement_timeout_ms=_STATEMENT_MS)
        with closing(opened) as connection, connection.cursor() as query:
            return _state(query)
    except psycopg2.Error as error:
        judgement = judged(error)
        if isinstance(judgement, PostgresAway):
            raise judgement from error
        raise


def _state(query: Any) -> PostgresState:
    asked_ns = time.time_ns()
    query.execute(
        "select current_setting('server_version'), current_setting('transaction_read_only'),"
        " (extract(epoch from clock_timestamp()) * 1000)::bigint"
    )
    version, read_only, there_ms = query.fetchone()
    here_ms = (asked_ns + time.time_ns()) // 2_000_000
    found = partitions(query)
    migrated = _exists(query, "api_keys") and _exists(query, "bad_facts")
    return PostgresState(
        version=version.split()[0],
        writable=read_only == "off",
        keys=_keys(query) if migrated else (),
        bad_facts=_count_bad_facts(query) if migrated else 0,
        clock_off_ms=there_ms - here_ms,
        partitions=tuple(found),
        strays=sum(rows_in(query, each.name, 0, LAST_MS, _MOST_COUNTED) for each in found if each.is_default),
        installation=_installation(query) if _exists(query, "schema_migrations") else None,
    )


def _exists(query: Any, table: str) -> bool:
    query.execute("select to_regclass(%s) is not null", (table,))
    return bool(query.fetchone()[0])


def _keys(query: Any) -> tuple[tuple[str, int], ...]:
    query.execute(
        "select name, (extract(epoch from created_at) * 1000)::bigint from api_keys"
        " where revoked_at is null order by created_at limit 1000"
    )
    return tuple(query.fetchall())


def _installation(query: Any) -> str | None:
    query.execute(MADE)
    found = query.fetchone()
    return found[0] if found else None


def _count_bad_facts(query: Any) -> int:
    query.execute("select count(*) from bad_facts")
    return int(query.fetchone()[0])
