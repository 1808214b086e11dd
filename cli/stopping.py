"""How a process is told to stop, from its first moment to its last (R5).

The first SIGTERM or SIGINT asks: what is under way is finished. It has a set time; when that is over, or when a second
signal comes, the process ends at once, and takes the servers that are its own with it.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import FrameType
from typing import Final

from loguru import logger

from tocsin.storage.server_process import end_all

_SERVERS_END_S: Final = 3.0


class Stopping:
    """The signals of one process. While its event loop runs a thread of their own hears of them: a handler of Python's
    runs wherever the main thread happens to be, and where that is too deep to call anything more it is lost."""

    def __init__(self) -> None:
        self.asked = False
        self._ending = False
        self._limit_s = 0.0
        self._tell: Callable[[], object] | None = None
        self._watch: threading.Timer | None = None
        self._heard_by_thread = False

    def listen(self) -> None:
        """From here on signals are this object's. Until `to` is called, the first one ends the process in order."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)

    def to(self, tell: Callable[[], object], limit_s: float) -> None:
        """Who is told of the first signal, and how long after it the process is ended, should it not have stopped. To
        be called by the event loop once it runs, for it takes the place of what woke that at a signal."""
        self._tell, self._limit_s = tell, limit_s
        hearing, told = socket.socketpair()
        told.setblocking(False)
        threading.Thread(target=self._hear, args=(hearing, told), name="signals", daemon=True).start()
        signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
        self._heard_by_thread = True

    def last(self, limit_s: float) -> None:
        """The event loop has ended; what is still to stop has `limit_s` seconds from now."""
        self._heard_by_thread = False
        self._within(limit_s)

    def _within(self, limit_s: float) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._watch = threading.Timer(limit_s, self._too_late)
        self._watch.daemon = True
        self._watch.start()

    def _hear(self, hearing: socket.socket, told: socket.socket) -> None:
        """Runs as long as the process; `told` is what the system writes to, and is kept open here."""
        with hearing, told:
            while hearing.recv(1):
                self._asks()

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if self._heard_by_thread:
            return
        if self._tell is None and not self.asked:
            self.asked = True
            # Nothing is under way yet.
            sys.exit(0)
        self._asks()

    def _asks(self) -> None:
        if self.asked:
            logger.warning("stopped by a second signal; what was under way is taken up again at its lease's end")
            self._end()
        self.asked = True
        self._within(self._limit_s)
        # The loop may just have ended by itself.
        with suppress(RuntimeError):
            if self._tell is not None:
                self._tell()

    def _too_late(self) -> None:
        logger.error("it has not stopped in its time and is ended; others take up what was under way")
        self._end()

    def _end(self) -> None:
        """Ends this process now, with what belongs to it. Does not return."""
        if not self._ending:
            self._ending = True
            end_all(_SERVERS_END_S)
        os._exit(1)


class Threads(ThreadPoolExecutor):
    """Threads for what blocks. Their end is not waited for: one may wait for a server that does not answer."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=True)


def leave() -> None:
    """Ends a process that has stopped, though threads of it may still wait for a server that does not answer."""
    mine = (threading.current_thread(), threading.main_thread())
    if any(not thread.daemon and thread not in mine for thread in threading.enumerate()):
        logger.complete()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
