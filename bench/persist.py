"""persist: rows a second that the journal becomes in Postgres, beside COPY and INSERT … ON CONFLICT of the very same
rows into the same tables with the same indexes.

Ours goes into one database, its limit into another of the same server; both grow by the same rows, turn by turn.
"""

import gc
import io
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Final
from uuid import UUID

from tocsin.bench.report import Figure, beside
from tocsin.bench.servers import folder, own_servers
from tocsin.domain import ids
from tocsin.storage import persist
from tocsin.storage.connecting import connect
from tocsin.storage.database import database
from tocsin.storage.facts import Entry
from tocsin.storage.migrate import migrate

_LEAST_ROUNDS: Final = 3
_MOST_ROUNDS: Final = 25
_ENTRIES: Final = 64
_CHUNK: Final = 100
_BEGAN_MS: Final = time.time_ns() // 1_000_000
"""Rows of now, as they lie in a partition of their time."""
_TABLES: Final = ("notifications", "deliveries")


def measure(seconds: float) -> list[Figure]:
    """Takes at most about `seconds`."""
    ours: list[float] = []
    limit: list[float] = []
    busy: list[float] = []
    end_s = time.monotonic() + seconds
    with folder() as where, own_servers(where / "data") as servers, _database(servers.postgres_url, "limit") as bare:
        migrate(servers.postgres_url)
        with closing(_connection(servers.postgres_url)) as connection:
            for number in range(_MOST_ROUNDS + 1):
                if number > _LEAST_ROUNDS and time.monotonic() > end_s:
                    break
                entries = _entries(number)
                # As the program at its start (cli/compose.py): what measuring has left is no work of storing.
                gc.collect()
                gc.freeze()
                used_s = time.process_time()
                took_s = _ours(connection, entries)
                used_s = time.process_time() - used_s
                rows = _rows(connection, number)
                bare_s = _bare(bare, rows)
                if number:  # the first one warms both up
                    made = sum(text.count(b"\n") for text in rows.values())
                    ours.append(made / took_s)
                    limit.append(made / bare_s)
                    busy.append(used_s / took_s)
    notes = {"batch": f"{_ENTRIES} entries of {_CHUNK}", "own_share": round(sum(busy) / len(busy), 2)}
    return [beside("persist", "rows/s", ours, limit, least=0.8, notes=notes)]


def _ours(connection: Any, entries: list[Entry]) -> float:
    """Stores the entries as the persistence actor does; answers the seconds it took."""
    began_s = time.perf_counter()
    with database.lent(connection):
        persist.store(entries)
    return time.perf_counter() - began_s


def _bare(connection: Any, rows: dict[str, bytes]) -> float:
    """Writes ready-made rows; answers the seconds it took."""
    statements = {table: _upsert(connection, table) for table in rows}
    began_s = time.perf_counter()
    with connection.cursor() as query:
        query.execute("begin")
        for table, text in rows.items():
            query.execute(f"create temporary table given (like {table}) on commit drop")
            query.copy_expert("copy given from stdin", io.BytesIO(text))
            query.execute(statements[table])
            query.execute("drop table given")
        query.execute("commit")
    return time.perf_counter() - began_s


def _upsert(connection: Any, table: str) -> str:
    with connection.cursor() as query:
        query.execute(f"select * from {table} limit 0")
        names = [column.name for column in query.description if column.name != "id"]
    changes = ", ".join(f"{name} = excluded.{name}" for name in names)
    return f"insert into {table} select * from given on conflict (id) do update set {changes}"


def _rows(connection: Any, number: int) -> dict[str, bytes]:
    """What ours has made of round `number`, as COPY writes it, by table."""
    found = {}
    first, last = _prefix(number), _prefix(number + 1)
    with connection.cursor() as query:
        for table in _TABLES:
            text = io.BytesIO()
            query.copy_expert(
                f"copy (select * from {table} where id >= '{first}' and id < '{last}' order by id) to stdout", text
            )
            found[table] = text.getvalue()
    return found


def _entries(number: int) -> list[Entry]:
    """Journal entries as route writes them: each a chunk of notifications, in-app delivered and email queued."""
    at_ms = _at_ms(number)
    made = []
    for chunk in range(_ENTRIES):
        event = ids.event_id(at_ms, chunk.to_bytes(10, "big"))
        notifications = [_notification(event, f"u{chunk * _CHUNK + place}") for place in range(_CHUNK)]
        fact = {"f": "routed", "e": str(event), "at": at_ms, "cid": f"bench-{number}-{chunk}", "published": True}
        course = [at_ms, [[1, "IN_APP", "DELIVERED", None, at_ms], [2, "EMAIL", "QUEUED", None, at_ms]]]
        made.append((f"{at_ms}-{chunk}", [{**fact, "plans": [course], "n": notifications}]))
    return made


def _notification(event: UUID, user: str) -> list[Any]:
    return [str(ids.notification_id(event, user)), user, 0, f"{user}@example.org"]


def _at_ms(number: int) -> int:
    """A millisecond of the round's own, by which its rows are found again."""
    return _BEGAN_MS + number * 1_000


def _prefix(number: int) -> UUID:
    """The least id of a round."""
    return UUID(int=_at_ms(number) << 80)


@contextmanager
def _database(url: str, name: str) -> Iterator[Any]:
    """A connection to a migrated database of its own on the same server."""
    with closing(_connection(url)) as connection, connection.cursor() as query:
        query.execute(f'create database "{name}"')
    own = url.replace("@/tocsin?", f"@/{name}?")
    migrate(own)
    with closing(_connection(own)) as connection:
        yield connection


def _connection(url: str) -> Any:
    return connect(url, connect_timeout_ms=3_000, statement_timeout_ms=30_000)
