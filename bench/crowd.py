"""Many people: known to Postgres, told something, counted afterwards."""

import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Final
from uuid import UUID

import redis

from tocsin.bench.api import Api
from tocsin.bench.servers import Servers
from tocsin.storage import id_ranges
from tocsin.storage.connecting import connect

_MOST_AT_ONCE: Final = 10_000
"""How many ids one request may name."""
_TOGETHER: Final = 200
_ROWS_AT_ONCE: Final = 100_000
_OF_EVENT: Final = "id between %s and %s"
_SIZE: Final = "select pg_database_size(current_database()), pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')"


def name_of(number: int) -> str:
    """The id of a person."""
    return f"p{number:07d}"


def introduce(servers: Servers, people: int, *, devices: bool = False) -> None:
    """Makes so many people known, each with a mail address and a number; with `devices` also with one to push to."""
    with _connection(servers) as connection, connection.cursor() as query:
        for first in range(0, people, _ROWS_AT_ONCE):
            numbers = range(first, min(first + _ROWS_AT_ONCE, people))
            _copy(query, "users (id, email, phone)", (_user_line(number) for number in numbers))
            if devices:
                _copy(query, "devices (user_id, kind, token)", (_device_line(number) for number in numbers))
        query.execute("analyze users")


def _user_line(number: int) -> str:
    return f"{name_of(number)}\t{name_of(number)}@example.org\t+1415{5_550_000 + number % 10_000:07d}\n"


def _device_line(number: int) -> str:
    return f"{name_of(number)}\tandroid\ttoken-of-{name_of(number)}\n"


def _copy(query: Any, table: str, lines: Iterator[str]) -> None:
    query.copy_expert(f"copy {table} from stdin", io.StringIO("".join(lines)))


def tell(api: Api, people: int, **content: Any) -> list[UUID]:
    """Posts an event to the first so many people by their ids, ten thousand a request; answers the events."""
    posted = []
    for first in range(0, people, _MOST_AT_ONCE):
        names = [name_of(number) for number in range(first, min(first + _MOST_AT_ONCE, people))]
        posted.append(_post(api, content | {"recipientIds": names}))
    return posted


def tell_everybody(api: Api, people: int, **content: Any) -> list[UUID]:
    """The same by one event to everyone, where that can be posted; else by their ids."""
    document = api.ask("GET", "/openapi.json")
    if "everyone" in document["components"]["schemas"]["PostNotification"]["properties"]:
        return [_post(api, content | {"everyone": True})]
    return tell(api, people, **content)


def tell_often(api: Api, count: int, event: dict[str, Any]) -> list[str]:
    """Posts the same event to one person so many times; answers the notifications."""
    made: list[str] = []
    while len(made) < count:
        together = {"notifications": [event] * min(_TOGETHER, count - len(made))}
        answers = api.ask("POST", "/api/notifications/bulk", together)["results"]
        made += [answer["result"]["notifications"][0]["id"] for answer in answers]
    return made


def _post(api: Api, content: dict[str, Any]) -> UUID:
    event = {"type": "community.update", "title": "News", "message": "There is news for all of us.", **content}
    return UUID(api.ask("POST", "/api/notifications", event)["id"])


class Stored:
    """What Postgres has of events, by the range of their ids."""

    def __init__(self, servers: Servers) -> None:
        self._connection = connect(servers.postgres_url, connect_timeout_ms=3_000, statement_timeout_ms=120_000)

    def rows(self, table: str, events: Sequence[UUID]) -> int:
        """How many rows of "notifications" or "deliveries" are there."""
        return sum(self.value(f"select count(*) from {table} where {_OF_EVENT}", event) for event in events)

    def size(self) -> tuple[int, int]:
        """Bytes of the database, and bytes of write-ahead log written so far."""
        with self._connection.cursor() as query:
            query.execute(_SIZE)
            database, log = query.fetchone()
            return int(database), int(log)

    def value(self, statement: str, event: UUID) -> Any:
        """The one value of a statement whose two places are the least and the greatest id of the event."""
        return self.row(statement, event)[0]

    def row(self, statement: str, event: UUID) -> tuple[Any, ...]:
        """The first row."""
        with self._connection.cursor() as query:
            query.execute(statement, tuple(map(str, id_ranges.of_event(event))))
            found: tuple[Any, ...] = query.fetchone()
            return found

    def column(self, statement: str, event: UUID) -> list[Any]:
        """The first column of all rows."""
        with self._connection.cursor() as query:
            query.execute(statement, tuple(map(str, id_ranges.of_event(event))))
            return [row[0] for row in query.fetchall()]

    def close(self) -> None:
        self._connection.close()


class Waiting:
    """What Redis has that is still to be done."""

    def __init__(self, servers: Servers) -> None:
        self._client: Any = redis.Redis.from_url(servers.redis_url)

    def facts(self) -> int:
        """Journal entries that are not stored."""
        return int(self._client.xlen("tocsin:facts"))

    def work(self) -> int:
        """Events and chunks that are not finished, and notifications with a step to come."""
        return int(self._client.zcard("tocsin:due"))

    def in_channel(self, channel: str) -> int:
        """Deliveries that may start, or have started and not ended."""
        return int(self._client.zcard(f"tocsin:due:{channel}"))

    def used_mb(self) -> float:
        """Memory that holds data, in MB."""
        return float(self._client.info("memory")["used_memory"]) / 1e6

    def members(self, pattern: str) -> int:
        """How many keys there are of a pattern."""
        return sum(1 for _ in self._client.scan_iter(match=pattern, count=10_000))

    def bytes_of(self, pattern: str) -> int:
        """What the keys of a pattern take, by Redis's own reckoning."""
        total, batch = 0, []
        for key in self._client.scan_iter(match=pattern, count=10_000):
            batch.append(key)
            if len(batch) == 1_000:
                total, batch = total + self._usage(batch), []
        return total + self._usage(batch)

    def _usage(self, keys: Sequence[bytes]) -> int:
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.memory_usage(key, samples=0)
        return sum(found or 0 for found in pipeline.execute())

    def close(self) -> None:
        self._client.close()


def until(look: Callable[[], bool], limit_s: float, every_s: float = 0.05) -> float:
    """Waits until `look` says yes; answers how many seconds that took. Raises RuntimeError after `limit_s`."""
    began_s = time.monotonic()
    while not look():
        if time.monotonic() - began_s > limit_s:
            raise RuntimeError(f"it did not come about within {limit_s:.0f} s")
        time.sleep(every_s)
    return time.monotonic() - began_s


@contextmanager
def looking(servers: Servers) -> Iterator[tuple[Stored, Waiting]]:
    """Both, for as long as this lasts."""
    with closing(Stored(servers)) as stored, closing(Waiting(servers)) as waiting:
        yield stored, waiting


@contextmanager
def _connection(servers: Servers) -> Iterator[Any]:
    with closing(connect(servers.postgres_url, connect_timeout_ms=3_000, statement_timeout_ms=300_000)) as connection:
        yield connection
