"""A statement that lies prepared, and for which an event loop itself waits.

A call by `Postgres` passes to a thread and back, twice takes a turn at the interpreter from whoever works there, and is
planned anew: for a short statement each costs as much as the statement. This is a short cut and never the only way:
where it is not open, or does not end well, the caller goes the other one, which knows of outages.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

import psycopg2
from loguru import logger
from psycopg2.extensions import POLL_OK

from tocsin.domain.errors import PostgresAway
from tocsin.storage.ending import ended
from tocsin.storage.postgres import Postgres

_LIMIT_S: Final = 0.25
"""How long it is waited for: a caller who goes the other way then has lost no more."""
_MOST_IN_LINE: Final = 4
"""A statement takes a millisecond, the other way some: who would wait behind so many goes that one."""
_OPEN_AGAIN_S: Final = 1.0
_END_S: Final = 0.5


class Direct:
    """A connection of one event loop, beside the pool's, opened behind the back of whoever asks first. `prepare` is run
    on it once, and `execute` each time; it may have been done when that is not known, so it is one that may be done
    again. One caller at a time: others wait, where it is not for long, or go the other way."""

    def __init__(self, postgres: Postgres, prepare: str, execute: str) -> None:
        self._postgres = postgres
        self._prepare = prepare
        self._execute = execute
        self._connection: Any = None
        self._descriptor = -1
        self._answered: asyncio.Future[bool] | None = None
        self._turn = asyncio.Lock()
        self._in_line = 0
        self._opening: asyncio.Task[None] | None = None
        self._open_next_s = 0.0
        self._closed = False

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    async def run(self, *values: Any) -> bool:
        """Whether the statement was done, and committed; False where it may not have been."""
        if self._connection is None:
            self._open_behind()
        if self._connection is None or self._in_line == _MOST_IN_LINE:
            return False
        self._in_line += 1
        try:
            async with asyncio.timeout(_LIMIT_S), self._turn:
                return await self._run(values)
        except TimeoutError:
            return False
        finally:
            self._in_line -= 1

    async def _run(self, values: Sequence[Any]) -> bool:
        if self._connection is None:
            return False
        self._answered = asyncio.get_running_loop().create_future()
        done = False
        try:
            # Kept until the answer is there, for psycopg2 itself does not keep it.
            kept = self._connection.cursor()
            kept.execute(self._execute, values)
            done = await self._answered
        except psycopg2.Error:
            # The other way finds out what that means.
            done = False
        finally:
            self._answered = None
            if not done:
                self._drop()
        return done

    async def close(self) -> None:
        """Opens nothing more."""
        self._closed = True
        if self._opening is not None:
            await ended([self._opening], _END_S)
        self._drop()

    def _open_behind(self) -> None:
        if self._closed or self._opening is not None or self._postgres.is_away or time.monotonic() < self._open_next_s:
            return
        self._open_next_s = time.monotonic() + _OPEN_AGAIN_S
        self._opening = asyncio.create_task(self._open())

    async def _open(self) -> None:
        try:
            connection = await asyncio.to_thread(self._postgres.connect_prepared, self._prepare)
            self._connection, self._descriptor = connection, connection.fileno()
            asyncio.get_running_loop().add_reader(self._descriptor, self._heard)
        except PostgresAway as error:
            logger.debug("the short way to Postgres is not open: {}", error)
        finally:
            self._opening = None

    def _heard(self) -> None:
        """The server says something: the answer, or that it goes away."""
        try:
            ready = self._connection.poll() == POLL_OK
        except psycopg2.Error:
            self._tell(done=False)
            self._drop()
            return
        if ready:
            self._tell(done=True)

    def _tell(self, *, done: bool) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(done)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            connection.close()
