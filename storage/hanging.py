"""A Redis that takes connections and does not answer: the first calls wait for their time-out, and none after them
until a look finds that it answers again. redis-py would try each call again, with new connections that hang too.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import redis.asyncio
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.connection import HiredisRespSerializer

_TRIES: Final = 2
_SILENT_S: Final = 1.5
_SHORT: Final = 65_536
"""Bytes of a command that is written at once: so many a stream takes before it has anybody wait."""
_CLOSED: Final = "the handler is closed"


class Hanging:
    """What the calls of one pool have found."""

    def __init__(self) -> None:
        self.lasts = False
        self._answered_s = time.monotonic()
        self._looking: asyncio.Task[None] | None = None

    def answered(self) -> None:
        self._answered_s = time.monotonic()

    def missed(self) -> None:
        """Notes that a call got no answer in time: it hangs if no other got one. A machine with too much to do lets
        some wait too long, and not all."""
        if time.monotonic() - self._answered_s >= _SILENT_S:
            self.lasts = True

    def look(self, pool: "WatchedPool") -> None:
        """Sees to it that somebody finds out when it answers again."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(pool))

    def stop(self) -> None:
        if self._looking is not None:
            self._looking.cancel()

    async def _look(self, pool: "WatchedPool") -> None:
        connection = pool.make_connection()
        began_s = time.monotonic()
        try:
            await connection.connect()
            await connection.send_command("PING")
            await connection.read_response()
        except (exceptions.RedisError, OSError) as error:
            if _is_silence(error, began_s):
                return
            # It does not hang, it refuses: callers hear that at once from itself.
        finally:
            await connection.disconnect(nowait=True)
        self.lasts = False


class WatchedPool(redis.asyncio.BlockingConnectionPool):
    """A pool that gives no connection while Redis hangs. `hanging` is set by who makes it. Where a connection lies
    ready it is given and taken back by the shortest way: redis-py's own, which locks and counts what nobody collects,
    takes as long as all else of a call."""

    hanging: Hanging
    _waiting = 0
    """How many wait for a connection, or for one to be made."""

    def make_connection(self) -> Any:
        """A connection that writes its commands with hiredis, as redis-py's blocking ones do: its own way takes ten
        times as long."""
        connection: Any = super().make_connection()  # type: ignore[no-untyped-call]
        connection.pack_command = HiredisRespSerializer().pack
        connection.send_packed_command = partial(_send, connection, connection.send_packed_command)
        return connection

    async def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> Any:
        if self.hanging.lasts:
            self.hanging.look(self)
            raise exceptions.TimeoutError("Redis hangs")
        if (ready := await self._ready()) is not None:
            return ready
        self._waiting += 1
        try:
            return await super().get_connection()  # type: ignore[no-untyped-call]
        except exceptions.TimeoutError:
            self.hanging.missed()
            raise
        finally:
            self._waiting -= 1

    async def release(self, connection: Any) -> None:
        if self._waiting or connection.should_reconnect():
            await super().release(connection)
            return
        self._in_use_connections.remove(connection)
        self._available_connections.append(connection)

    async def _ready(self) -> Any:
        """The connection that was used last, if it is good; None where there is none."""
        if not self._available_connections:
            return None
        connection: Any = self.get_available_connection()  # type: ignore[no-untyped-call]
        good = False
        try:
            # What a call left unread belongs to none that follows.
            good = connection.is_connected and not await connection.can_read()
        except exceptions.ConnectionError:
            pass
        finally:
            if not good:
                await self.release(connection)
        return connection if good else None

    async def disconnect(self, inuse_connections: bool = True) -> None:
        self.hanging.stop()
        await super().disconnect(inuse_connections)


async def _send(connection: Any, send: Callable[..., Awaitable[None]], command: Any, check_health: bool = True) -> None:
    """Writes a command. redis-py makes a task of it, for the case that it waits for room: a short one that follows an
    answer finds room, and what it waits for is the answer."""
    if not connection.is_connected or not isinstance(command, list) or sum(map(len, command)) > _SHORT:
        await send(command, check_health=check_health)
        return
    if check_health:
        await connection.check_health()
    try:
        connection._writer.writelines(command)
    except OSError as error:
        await connection.disconnect(nowait=True)
        raise exceptions.ConnectionError("the connection is lost") from error


class Tries(Retry):
    """Two more tries, quickly, for a connection that is lost; none for one that hangs."""

    def __init__(self, hanging: Hanging) -> None:
        errors = (exceptions.ConnectionError, exceptions.TimeoutError)
        super().__init__(ExponentialBackoff(cap=0.2, base=0.02), _TRIES, supported_errors=errors)
        self._hanging = hanging

    def __deepcopy__(self, memo: object) -> "Tries":
        # Each connection copies its own; what it finds is for all.
        return self

    async def call_with_retry(
        self,
        do: Callable[[], Awaitable[Any]],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> Any:
        began_s = time.monotonic()

        async def answered() -> Any:
            nonlocal began_s
            began_s = time.monotonic()
            try:
                answer = await do()
            except RuntimeError as error:
                # What uvloop raises where asyncio raises an OSError: the server has just gone away.
                if not str(error).endswith(_CLOSED):
                    raise
                raise exceptions.ConnectionError("the connection is closed") from error
            # A connection alone is no answer: the system takes it for a server that hangs.
            if answer is not None:
                self._hanging.answered()
            return answer

        async def failed(error: Exception, count: int) -> None:
            await (fail(error, count) if with_failure_count else fail(error))
            if _is_silence(error, began_s):
                self._hanging.missed()
            if self._hanging.lasts:
                raise error

        return await super().call_with_retry(answered, failed, is_retryable, with_failure_count=True)


def _is_silence(error: Exception, began_s: float) -> bool:
    """Whether a call that began then failed because nobody answered. A time-out while redis-py greets the server may
    come as a lost connection; what is refused is refused at once."""
    return isinstance(error, (TimeoutError, exceptions.TimeoutError)) or time.monotonic() - began_s >= _SILENT_S
