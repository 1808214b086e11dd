"""The partitions of notifications and deliveries: seen, made ahead, dropped (docs/adr/0012).

Each holds the rows whose ids, which begin with the millisecond of their event, are of its span of time. What is of no
such span lies in the default partition, and moves when a partition for its time is made. Functions with a
`query` take a psycopg2 cursor, for processes that start and commands call them too.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import UUID

import psycopg2

from tocsin.domain import ids
from tocsin.domain.periods import Period, Span, left_of, spans
from tocsin.storage.database import cursor
from tocsin.storage.id_ranges import LAST_MS, first_of
from tocsin.storage.transactions import patiently

TABLES: Final = ("notifications", "deliveries")

LOCK: Final = int.from_bytes(b"tocsin", "big")
"""The advisory lock of who changes the schema. Any number will do that nobody else takes."""

_AUTOVACUUM: Final = {
    "autovacuum_vacuum_scale_factor": "0.02",
    "autovacuum_vacuum_insert_scale_factor": "0.05",
    "autovacuum_analyze_scale_factor": "0.02",
    "autovacuum_vacuum_cost_delay": "1",
    "autovacuum_freeze_min_age": "5000000",
}
STORAGE: Final[Mapping[str, Mapping[str, str]]] = {
    "notifications": _AUTOVACUUM,
    "deliveries": {"fillfactor": "85", **_AUTOVACUUM},
}
"""How Postgres keeps each partition, with reasons in docs/postgres.md. The partitioned table itself cannot say it."""

_PATIENCE_MS: Final = 2_000
"""Behind who waits for a whole table everybody waits who comes later."""
_PAUSES_S: Final = (0.5, 2.0)
_MOST_MOVED: Final = 50_000

_PARTITIONS: Final = """
select parent.relname, child.relname, pg_get_expr(child.relpartbound, child.oid),
  greatest(child.reltuples, 0)::bigint, pg_total_relation_size(child.oid), coalesce(child.reloptions, '{}')
from pg_inherits link
join pg_class child on child.oid = link.inhrelid
join pg_class parent on parent.oid = link.inhparent
where link.inhparent = any(array[to_regclass(%s), to_regclass(%s)]::oid[]) and not link.inhdetachpending
order by 1, 3, 2
"""
_bound: Final = re.compile(r"FOR VALUES FROM \((?:'([0-9a-f-]+)'|MINVALUE)\) TO \((?:'([0-9a-f-]+)'|MAXVALUE)\)").match


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition: the span of time of its rows, in ms (from the beginning 0, to the end LAST_MS; both 0 for the
    default one), how many Postgres takes them for, and how large it is with its indexes."""

    table: str
    name: str
    start_ms: int
    end_ms: int
    rows: int
    size: int
    options: tuple[str, ...]

    @property
    def is_default(self) -> bool:
        return self.end_ms == 0


@dataclass(frozen=True, slots=True)
class Made:
    """A partition that was made, and how many rows moved into it from the default one."""

    name: str
    moved: int


def partitions(query: Any) -> list[Partition]:
    """All partitions in the order of their time, the default ones last; none before the schema has them."""
    query.execute(_PARTITIONS, TABLES)
    found = [Partition(table, name, *_span(bound), rows, size, tuple(options)) for
             table, name, bound, rows, size, options in query.fetchall()]  # fmt: skip
    return sorted(found, key=lambda each: (each.table, each.is_default, each.start_ms))


def known() -> list[Partition]:
    """`partitions`, run by Postgres.call."""
    with cursor() as query:
        return partitions(query)


def is_covered(found: Sequence[Partition], ms: int) -> bool:
    """Whether each table has a partition for a time; where one has none, its rows may have been dropped."""
    covering = {each.table for each in found if not each.is_default and each.start_ms <= ms < each.end_ms}
    return covering == set(TABLES)


def missing(known: Sequence[Partition], period: Period, now_ms: int) -> Iterator[tuple[str, Span]]:
    """The spans, by table, that there should be a partition for and is none."""
    for table in TABLES:
        own = [each for each in known if each.table == table]
        taken = [(each.start_ms, each.end_ms) for each in own if not each.is_default]
        for span in spans(period, now_ms) if own else ():
            yield from ((table, left) for left in left_of(span, taken))


def tend(period: Period, now_ms: int) -> list[Made]:
    """Makes what is missing, unless that would keep others waiting for long: then `tocsin migrate` does, or the next
    start. Run by Postgres.call, by any number of processes."""
    with cursor() as query:
        query.execute("select pg_try_advisory_lock(%s)", (LOCK,))
        if not query.fetchone()[0]:
            return []
        try:
            return make_ahead(query, period, now_ms, most=_MOST_MOVED)
        finally:
            query.execute("select pg_advisory_unlock(%s)", (LOCK,))


def make_ahead(query: Any, period: Period, now_ms: int, *, most: int | None = None) -> list[Made]:
    """Makes what is missing and moves what the default partition has of its time, each in a transaction of its own. A
    span of which that has more than `most` rows is left for who has the time. Nobody else may be at it: the caller
    holds LOCK, and is in no transaction."""
    known = partitions(query)
    for each in known:
        _keep(query, each)
    made = [
        patiently(partial(_make, query, table, span, most), _PAUSES_S) for table, span in missing(known, period, now_ms)
    ]
    return [each for each in made if each is not None]


def rows_in(query: Any, table: str, start_ms: int, end_ms: int, most: int) -> int:
    """How many rows of a table, or of a partition, are of a span of time, counted up to `most`."""
    query.execute(
        f"select count(*) from (select from {table} where id >= %s::uuid and id < %s::uuid limit %s) as counted",  # noqa: S608
        (*_bounds(start_ms, end_ms), most),
    )
    return int(query.fetchone()[0])


def _make(query: Any, table: str, span: Span, most: int | None) -> Made | None:
    """Who reads or writes the whole table goes on, but for who needs the default partition: that waits for a moment. So
    nobody waits here for what another has while that one waits for what is had here."""
    name, default, bounds = f"{table}_{span.name}", f"{table}_default", _bounds(span.start_ms, span.end_ms)
    options = ", ".join(f"{option} = {value}" for option, value in STORAGE[table].items())
    with _transaction(query):
        query.execute(f"create table {name} (like {table} including all) with ({options})")
        # The same that attaching takes. A stronger one would have to wait for who reads.
        query.execute(f"lock table only {table} in share update exclusive mode")
        # Nobody may put a row of the span there from now on.
        query.execute(f"lock table {default} in access exclusive mode")
        if most is not None and rows_in(query, default, span.start_ms, span.end_ms, most + 1) > most:
            query.execute(f"drop table {name}")
            return None
        query.execute(
            f"with taken as (delete from {default} where id >= %s::uuid and id < %s::uuid returning *)"  # noqa: S608
            f" insert into {name} select * from taken",
            bounds,
        )
        moved = query.rowcount
        query.execute(f"alter table {table} attach partition {name} for values from (%s) to (%s)", bounds)
    return Made(name, moved)


@contextmanager
def _transaction(query: Any) -> Iterator[None]:
    query.execute("begin")
    try:
        query.execute(f"set local lock_timeout = {_PATIENCE_MS}")
        yield
    except BaseException:
        with suppress(psycopg2.Error):
            query.execute("rollback")
        raise
    query.execute("commit")


def _keep(query: Any, partition: Partition) -> None:
    """Sees to it that Postgres keeps a partition as STORAGE says."""
    wanted = STORAGE[partition.table]
    if {f"{option}={value}" for option, value in wanted.items()} - set(partition.options):
        options = ", ".join(f"{option} = {value}" for option, value in wanted.items())
        query.execute(f"alter table {partition.name} set ({options})")


def _bounds(start_ms: int, end_ms: int) -> tuple[str, str]:
    return str(first_of(start_ms)), str(first_of(end_ms))


def _span(bound: str) -> tuple[int, int]:
    found = _bound(bound)
    if found is None:
        return 0, 0
    first, last = found.groups()
    return ids.start_ms(UUID(first)) if first else 0, ids.start_ms(UUID(last)) if last else LAST_MS
