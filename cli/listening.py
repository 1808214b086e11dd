"""Where a process listens, and the server that answers there."""

import asyncio
import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import uvicorn

from tocsin.domain.errors import SettingError
from tocsin.storage.ending import ended

_TICK_S: Final = 1.0
_TOLD_S: Final = 0.3
_BROKEN_OFF_S: Final = 0.75


class Server(uvicorn.Server):
    """A server that leaves signals to its process, that sleeps while it has nothing to do, and that has ended what it
    broke off when it ends."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._told = asyncio.Event()

    def end(self) -> None:
        """Lets it finish what is under way; `serve` returns when it has."""
        self.should_exit = True
        self._told.set()

    async def main_loop(self) -> None:
        """As uvicorn's, which looks ten times a second whether it is to stop. Once a second it makes the date that
        answers bear."""
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), _TICK_S)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's. It cancels the requests whose time is over, and does not wait for them: they would meet what
        they stand on as it is closed."""
        await super().shutdown(sockets)
        if tasks := set(self.server_state.tasks):
            _, left = await asyncio.wait(tasks, timeout=_TOLD_S)
            await ended(left, _BROKEN_OFF_S)


def listen(host: str, port: int, *, setting: str = "http.port") -> socket.socket:
    """A socket at `host` and at the port that `setting` gave. Raises SettingError where it cannot be had."""
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise SettingError(_why_not_there(host, port, error, setting)) from error
    return listening


def address_of(listening: socket.socket) -> str:
    """Where this machine finds what listens there."""
    host, port = listening.getsockname()[:2]
    return f"http://{'127.0.0.1' if host in {'0.0.0.0', '::'} else host}:{port}"  # noqa: S104


def _why_not_there(host: str, port: int, error: OSError, setting: str) -> str:
    variable = f"TOCSIN_{setting.upper().replace('.', '__')}"
    if error.errno == errno.EADDRINUSE:
        return f"{setting}: {port} is in use by another program; stop that one, or give another ({variable})"
    if error.errno == errno.EACCES:
        return f"{setting}: this user may not listen on {port}; give one from 1024 on ({variable})"
    why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
    return f"http.host: {host} is no address of this machine ({why}); give one that is, or 0.0.0.0 (TOCSIN_HTTP__HOST)"
