"""Postgres for one process: a few connections, each call in a thread of its own, and quick answers while it is away."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import asynccontextmanager, suppress
from typing import Any, Generic, ParamSpec, TypeVar

from tocsin.domain.errors import PostgresAway
from tocsin.domain.setting_sections import PostgresSettings
from tocsin.storage.connecting import break_off, connect, is_alive, is_clean, settle
from tocsin.storage.database import TooSlow, cursor, database, judging
from tocsin.storage.outage import Outage

_LET_FINISH_S = 0.5

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Postgres:
    """A pool of at most `settings.pool` connections, opened when needed. Safe from any event loop and thread."""

    def __init__(self, settings: PostgresSettings) -> None:
        if settings.url is None:
            raise ValueError("postgres.url is set before Postgres is used")
        self._url = settings.url
        self._settings = settings
        self._threads = ThreadPoolExecutor(settings.pool, thread_name_prefix="postgres")
        self._looking = ThreadPoolExecutor(1, thread_name_prefix="postgres-look")
        self._look: Future[None] | None = None
        self._idle: deque[Any] = deque()
        self._outage = Outage()
        self._at_work: dict[Future[Any], _Work[Any]] = {}

    async def call(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """What `function` answers, run in a thread on a connection of its own. Raises PostgresAway when Postgres does
        not answer in time, cannot write or lacks its schema, or when every connection is busy for too long; Refused
        when it will not have the data."""
        return await self.call_within(2 * self._settings.statement_timeout, function, *args, **kwargs)

    async def call_within(self, limit_ms: int, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """As `call`, for at most about `limit_ms`: then the connection is broken off, and nobody knows whether the work
        was committed."""
        if self._outage.hangs:
            # Nobody waits for it: a look at it, in a thread of its own, finds out when it is back.
            self._look_once()
            raise PostgresAway("Postgres does not answer")
        self._outage.check()
        work = _Work(lambda: function(*args, **kwargs))
        try:
            running = self._threads.submit(self._run, work)
        except RuntimeError as error:
            raise PostgresAway("this process is stopping") from error
        self._at_work[running] = work
        running.add_done_callback(lambda done: self._at_work.pop(done, None))
        waiting = asyncio.wrap_future(running)
        try:
            if not await self._done(waiting, limit_ms / 1000):
                if running.cancel():
                    raise TooSlow("Postgres is too busy for this")
                work.break_off()
            return await waiting
        except asyncio.CancelledError:
            waiting.cancel()
            raise

    @asynccontextmanager
    async def lock(self, name: str) -> AsyncIterator[bool]:
        """Whether this process alone may do what `name` says, until the end. On a connection of its own, with which the
        lock goes: should that break, others may do it too. Raises PostgresAway."""
        connection, mine = await asyncio.to_thread(self._lock, name)
        try:
            yield mine
        finally:
            await asyncio.to_thread(connection.close)

    @property
    def is_away(self) -> bool:
        """Whether the last call found that Postgres does not serve."""
        return self._outage.lasts

    async def ping(self) -> None:
        """Raises PostgresAway when Postgres does not answer, takes no writes, or lacks our tables."""
        writable, migrated = await self.call_within(2 * self._settings.connect_timeout, _ping)
        # Raised here, for it is no outage: what can be read is read all the same.
        if not writable:
            raise PostgresAway("Postgres is read-only")
        if not migrated:
            raise PostgresAway("Postgres does not have our tables; run `tocsin migrate`")

    def connect_prepared(self, prepare: str) -> Any:
        """A connection beside the pool's, on which `prepare` was run and that does not wait: an event loop may. To be
        called in a thread; what it answers is the caller's to close. Raises PostgresAway."""
        with judging():
            connection = self._connect(waits=False)
            try:
                settle(connection, self._settings.connect_timeout)
                query = connection.cursor()
                query.execute(prepare)
                settle(connection, self._settings.connect_timeout)
            except BaseException:
                connection.close()
                raise
        return connection

    async def close(self) -> None:
        """Closes every connection. What runs may finish, briefly, and is then broken off: a server that hangs would be
        waited for without end. A thread that is connecting may outlast this by `connect_timeout`."""
        for pool in (self._threads, self._looking):
            pool.shutdown(wait=False, cancel_futures=True)
        if at_work := list(self._at_work):
            await asyncio.to_thread(wait, at_work, _LET_FINISH_S)
        for work in list(self._at_work.values()):
            work.break_off()
        self._drop_idle()

    async def _done(self, waiting: "asyncio.Future[_T]", limit_s: float) -> bool:
        """Waits for an answer. After a while it looks whether Postgres answers anybody: one that hangs, or whose
        machine is gone without a word, is not to be waited for as long as one that is at work."""
        patience_s = min(limit_s, self._settings.connect_timeout / 1000)
        done, _ = await asyncio.wait({waiting}, timeout=patience_s)
        if done or limit_s <= patience_s:
            return bool(done)
        try:
            await asyncio.shield(asyncio.wrap_future(self._look_once()))
        except PostgresAway:
            return waiting.done()
        done, _ = await asyncio.wait({waiting}, timeout=limit_s - patience_s)
        return bool(done)

    def _look_once(self) -> "Future[None]":
        """A look at Postgres that all who wonder share."""
        if self._look is None or self._look.done():
            try:
                self._look = self._looking.submit(self._look_at_it)
            except RuntimeError as error:
                raise PostgresAway("this process is stopping") from error
        return self._look

    def _look_at_it(self) -> None:
        began_s = time.monotonic()
        try:
            with judging():
                self._connect().close()
        except PostgresAway as error:
            self._outage.begins(error, time.monotonic() - began_s)
            raise
        self._outage.answers()

    def _run(self, work: "_Work[_T]") -> _T:
        began_s = time.monotonic()
        try:
            with judging():
                answer = self._on_a_connection(work)
        except PostgresAway as error:
            if not isinstance(error, TooSlow):
                self._outage.begins(error, time.monotonic() - began_s)
                self._drop_idle()
            raise
        self._outage.ends()
        return answer

    def _on_a_connection(self, work: "_Work[_T]") -> _T:
        connection = self._take()
        work.starts_on(connection)
        try:
            with database.lent(connection):
                return work.function()
        finally:
            work.ends()
            self._give_back(connection)

    def _take(self) -> Any:
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if is_alive(connection):
                    return connection
                connection.close()
        return self._connect()

    def _connect(self, *, waits: bool = True) -> Any:
        return connect(
            self._url,
            connect_timeout_ms=self._settings.connect_timeout,
            statement_timeout_ms=self._settings.statement_timeout,
            waits=waits,
        )

    def _lock(self, name: str) -> tuple[Any, bool]:
        with judging():
            connection = self._connect()
            with connection.cursor() as query:
                query.execute("select pg_try_advisory_lock(hashtextextended(%s, 0))", (f"tocsin {name}",))
                return connection, bool(query.fetchone()[0])

    def _give_back(self, connection: Any) -> None:
        if is_clean(connection):
            self._idle.append(connection)
        else:
            connection.close()

    def _drop_idle(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().close()


class _Work(Generic[_T]):
    """A call on its way; knows its connection while it runs, so that a waiter can break it off."""

    def __init__(self, function: Callable[[], _T]) -> None:
        self.function = function
        self._connection: Any = None
        self._lock = threading.Lock()

    def starts_on(self, connection: Any) -> None:
        with self._lock:
            self._connection = connection

    def ends(self) -> None:
        with self._lock:
            self._connection = None

    def break_off(self) -> None:
        with self._lock:
            if self._connection is not None:
                break_off(self._connection)


def _ping() -> tuple[bool, bool]:
    with cursor() as query:
        query.execute("select current_setting('transaction_read_only') = 'off', to_regclass('events') is not null")
        writable, migrated = query.fetchone()
        return bool(writable), bool(migrated)
