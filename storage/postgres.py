"""Postgres for one process: a few connections, each call in a thread of its own, and quick answers while it is away."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, Generic, ParamSpec, TypeVar

from loguru import logger

from tocsin.domain.errors import PostgresAway
from tocsin.domain.setting_sections import PostgresSettings
from tocsin.storage.connecting import break_off, connect, is_alive, is_clean
from tocsin.storage.database import TooSlow, cursor, database, judging

_P = ParamSpec("_P")
_T = TypeVar("_T")

_QUIET_S: Final = 60.0
_TRY_AGAIN_S: Final = 0.5


class Postgres:
    """A pool of at most `settings.pool` connections, opened when needed. Safe from any event loop and thread."""

    def __init__(self, settings: PostgresSettings) -> None:
        if settings.url is None:
            raise ValueError("postgres.url is set before Postgres is used")
        self._url = settings.url
        self._settings = settings
        self._threads = ThreadPoolExecutor(settings.pool, thread_name_prefix="postgres")
        self._idle: deque[Any] = deque()
        self._outage = _Outage()

    async def call(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """What `function` answers, run in a thread on a connection of its own. Raises PostgresAway when Postgres does
        not answer in time, cannot write or lacks its schema, or when every connection is busy for too long; Refused
        when it will not have the data."""
        return await self.call_within(2 * self._settings.statement_timeout, function, *args, **kwargs)

    async def call_within(self, limit_ms: int, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """As `call`, for at most about `limit_ms`: then the connection is broken off, and nobody knows whether the work
        was committed."""
        self._outage.check()
        work = _Work(lambda: function(*args, **kwargs))
        try:
            running = self._threads.submit(self._run, work)
        except RuntimeError as error:
            raise PostgresAway("this process is stopping") from error
        return await _outcome(work, running, limit_ms / 1000)

    async def ping(self) -> None:
        """Raises PostgresAway when Postgres does not answer."""
        await self.call_within(2 * self._settings.connect_timeout, _ping)

    async def close(self) -> None:
        """Lets what runs finish and closes every connection."""
        await asyncio.to_thread(self._threads.shutdown, wait=True)
        self._drop_idle()

    def _run(self, work: "_Work[_T]") -> _T:
        try:
            with judging():
                answer = self._on_a_connection(work)
        except PostgresAway as error:
            if not isinstance(error, TooSlow):
                self._outage.begins(error)
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
        return connect(
            self._url,
            connect_timeout_ms=self._settings.connect_timeout,
            statement_timeout_ms=self._settings.statement_timeout,
        )

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


async def _outcome(work: _Work[_T], running: Future[_T], limit_s: float) -> _T:
    waiting = asyncio.wrap_future(running)
    done, _ = await asyncio.wait({waiting}, timeout=limit_s)
    if not done:
        if running.cancel():
            raise TooSlow("every connection to Postgres is busy")
        work.break_off()
    return await waiting


class _Outage:
    """Whether Postgres is away, said once a minute. While it is, one call in half a second tries, and the others are
    answered at once: they would only pile up behind its time-outs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cause: PostgresAway | None = None
        self._next_try_s = 0.0
        self._said_s = -_QUIET_S

    def check(self) -> None:
        """Raises PostgresAway while Postgres is away and another call has just tried."""
        if self._cause is None:
            return
        with self._lock:
            now_s = time.monotonic()
            if self._cause is not None and now_s < self._next_try_s:
                raise PostgresAway(str(self._cause))
            self._next_try_s = now_s + _TRY_AGAIN_S

    def begins(self, cause: PostgresAway) -> None:
        with self._lock:
            now_s = time.monotonic()
            self._cause = cause
            self._next_try_s = now_s + _TRY_AGAIN_S
            if now_s - self._said_s < _QUIET_S:
                return
            self._said_s = now_s
        logger.warning("{}; it is tried again until it does", cause)

    def ends(self) -> None:
        if self._cause is None:
            return
        with self._lock:
            was, self._cause = self._cause, None
            self._said_s = -_QUIET_S
        if was is not None:
            logger.info("Postgres serves again")


def _ping() -> None:
    with cursor() as query:
        query.execute("select 1")
