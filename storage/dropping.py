"""Partitions of long ago are dropped, which is what retention of notifications and deliveries comes to.

Events stay, with their counts; so does what providers told. A command calls this, with a connection of its own.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg2

from tocsin.domain.errors import Conflict, PostgresAway
from tocsin.storage.connecting import connect
from tocsin.storage.database import judged
from tocsin.storage.id_ranges import first_of
from tocsin.storage.partitions import LOCK, TABLES, Partition, partitions, rows_in

_CONNECT_MS: Final = 5_000
_NO_LIMIT: Final = 0
_PATIENCE_MS: Final = 5_000
"""Behind who waits for a whole table everybody waits who comes later."""
_MOST_COUNTED: Final = 10_000

# The statuses stand here as in the partial indexes.
_OPEN: Final = """
select count(*) from (select from deliveries where status in ('SCHEDULED', 'QUEUED', 'RETRYING', 'SENDING')
  and id < %s::uuid limit %s) as counted
"""
_UNFINISHED: Final = """
select count(*) from (select from events where status in ('PENDING', 'PROCESSING')
  and accepted_at is not null and id < %s::uuid limit %s) as counted
"""


@dataclass(frozen=True, slots=True)
class Old:
    """What is of before a moment: the partitions that hold nothing else, the rows of the default ones by table, and
    what hinders that it is dropped, up to 10,000 each."""

    partitions: Sequence[Partition]
    strays: dict[str, int] = field(default_factory=dict)
    open_deliveries: int = 0
    unfinished_events: int = 0


def known(url: str) -> list[Partition]:
    """All partitions, in the order of their time. Raises PostgresAway."""
    with _asking(url) as query:
        return partitions(query)


def old(url: str, before_ms: int) -> Old:
    """What of before `before_ms` could be dropped. Raises PostgresAway."""
    with _asking(url) as query:
        return _old(query, before_ms)


def drop(url: str, before_ms: int, actor: str) -> Old:
    """Drops what is of before `before_ms`, each partition with all that is in it; answers what that was. Raises
    Conflict where something of it is not final, and PostgresAway, also where others use a table for too long: what was
    dropped until then is."""
    with _asking(url) as query:
        query.execute("select pg_advisory_lock(%s)", (LOCK,))
        found = _old(query, before_ms)
        if found.open_deliveries or found.unfinished_events:
            raise Conflict(
                f"{found.open_deliveries} deliveries and {found.unfinished_events} events of before then are not final"
            )
        for each in found.partitions:
            _drop(query, each, actor)
        for table, count in found.strays.items():
            if count:
                query.execute(f"delete from {table}_default where id < %s::uuid", (str(first_of(before_ms)),))  # noqa: S608
        return found


def _old(query: Any, before_ms: int) -> Old:
    whole = [each for each in partitions(query) if not each.is_default and each.end_ms <= before_ms]
    strays = {table: rows_in(query, f"{table}_default", 0, before_ms, _MOST_COUNTED) for table in TABLES}
    counts = []
    for statement in (_OPEN, _UNFINISHED):
        query.execute(statement, (str(first_of(before_ms)), _MOST_COUNTED))
        counts.append(query.fetchone()[0])
    return Old(whole, strays, *counts)


def _drop(query: Any, partition: Partition, actor: str) -> None:
    """In a transaction of its own, so that others wait for one at a time. Where there is a default partition Postgres
    detaches none concurrently."""
    query.execute("begin")
    query.execute(f"set local lock_timeout = {_PATIENCE_MS}")
    query.execute(f"alter table {partition.table} detach partition {partition.name}")
    query.execute(f"drop table {partition.name}")
    detail = {"partition": partition.name, "rows": partition.rows}
    query.execute(
        "insert into audit_log (action, actor, detail) values ('partitions.dropped', %s, %s)",
        (actor, json.dumps(detail)),
    )
    query.execute("commit")


@contextmanager
def _asking(url: str) -> Iterator[Any]:
    try:
        opened = connect(url, connect_timeout_ms=_CONNECT_MS, statement_timeout_ms=_NO_LIMIT)
        with closing(opened) as connection, connection.cursor() as query:
            yield query
    except psycopg2.Error as error:
        judgement = judged(error)
        if isinstance(judgement, PostgresAway):
            raise judgement from error
        raise
