"""What tests of Postgres begin with: facts as the scripts write them, and rows as they are stored."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from typing import Any, TypeVar
from uuid import UUID

from tocsin.actors.persist import Persister
from tocsin.domain import ids
from tocsin.domain.settings import load
from tocsin.storage import queries
from tocsin.storage.connecting import connect
from tocsin.storage.database import cursor, database
from tocsin.storage.postgres import Postgres
from tocsin.storage.store import Store

_T = TypeVar("_T")

AT_MS = 1_795_000_000_123
EVENT = ids.event_id(AT_MS, b"0123456789")
NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"
"""A Postgres that is away."""

IN_APP_AND_EMAIL = ((1, "IN_APP", "DELIVERED", None, None, AT_MS), (2, "EMAIL", "QUEUED", None, "a@example.org", AT_MS))


@contextmanager
def lent(url: str) -> Iterator[Any]:
    """A connection that this thread's storage functions use."""
    with (
        closing(connect(url, connect_timeout_ms=3_000, statement_timeout_ms=30_000)) as connection,
        database.lent(connection),
    ):
        yield connection


def eventually(look: Callable[[], _T], *, limit_s: float = 10.0) -> _T:
    """What `look` sees as soon as it sees something."""
    end_s = time.monotonic() + limit_s
    while not (seen := look()):
        assert time.monotonic() < end_s, "it did not happen"
        threading.Event().wait(0.01)
    return seen


def ask(statement: str, *values: Any) -> list[Any]:
    """The rows that a statement answers."""
    with cursor() as query:
        query.execute(statement, values or None)
        return list(query.fetchall()) if query.description else []


def rows_of(url: str, statement: str, *values: Any) -> list[Any]:
    """The rows that a statement answers in another's database."""
    with lent(url):
        return ask(statement, *values)


@asynccontextmanager
async def open_store(redis_url: str, postgres_url: str, more: Mapping[str, Any] | None = None) -> AsyncIterator[Store]:
    """A store on these servers, with the settings `more`."""
    settings = load({}).with_values({"postgres.url": postgres_url, "redis.url": redis_url, **(more or {})})
    postgres = Postgres(settings.postgres)
    made = await Store.open(settings, postgres)
    try:
        yield made
    finally:
        await made.close()
        await postgres.close()


@asynccontextmanager
async def open_without_postgres(redis_url: str) -> AsyncIterator[Store]:
    """A store whose Postgres does not answer, and whose Redis is not asked which life it is in."""
    async with open_store(redis_url, NOWHERE) as made:
        made.life.adopt("", 0)
        yield made


async def read_times(store: Store, user: str, notifications: Sequence[UUID]) -> dict[UUID, int | None]:
    """When a user's notifications were read, those that are stored."""
    return await store.postgres.call(queries.read_times, user, notifications)


@asynccontextmanager
async def draining(store: Store) -> AsyncIterator[None]:
    """The journal drains meanwhile."""
    over = asyncio.Event()
    persister = Persister(store, "tests")

    async def drain() -> None:
        while not over.is_set():
            await persister.drain()
            await asyncio.sleep(0.01)

    task = asyncio.create_task(drain())
    try:
        yield
    finally:
        over.set()
        await task


def note(user: str, event: UUID = EVENT) -> str:
    """The id of a user's notification."""
    return str(ids.notification_id(event, user))


def routed(
    *users: str, event: UUID = EVENT, at_ms: int = AT_MS, steps: Sequence[Sequence[Any]] = IN_APP_AND_EMAIL
) -> dict[str, Any]:
    """What route.lua tells."""
    course = [at_ms, [[*step[:4], step[5]] for step in steps]]
    addresses = [step[4] for step in steps if step[1] != "IN_APP"]
    made = [[note(user, event), user, 0, *addresses] for user in users]
    return {"f": "routed", "e": str(event), "at": at_ms, "cid": "c1", "published": True, "plans": [course], "n": made}


def moved(
    user: str,
    status: str,
    detail: dict[str, Any] | None = None,
    *,
    attempt: int = 1,
    at_ms: int = AT_MS + 50,
    word: str | None = None,
    step: int = 2,
    channel: str = "EMAIL",
) -> dict[str, Any]:
    """One change of one delivery, as `tell_move` of lib.lua tells it."""
    return {"f": "moved", "d": [[note(user), step, channel, attempt, status, word, at_ms, detail or {}]]}


def read(*users: str, at_ms: int = AT_MS + 900) -> dict[str, Any]:
    """What read.lua tells."""
    return {"f": "read", "at": at_ms, "n": [[note(user), user] for user in users]}


def progress(
    status: str, *, at_ms: int = AT_MS, expected: int | None = None, error: str | None = None
) -> dict[str, Any]:
    """What event.lua tells."""
    return {"f": "event", "e": str(EVENT), "at": at_ms, "status": status, "expected": expected, "error": error}


def entries(*facts: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Each fact as a journal entry of its own."""
    return [(f"1-{number}", [fact]) for number, fact in enumerate(facts)]
