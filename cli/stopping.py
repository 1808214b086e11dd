"""How a process is told to stop, from its first moment to its last (R5).

The first SIGTERM or SIGINT asks: what is under way is finished. It has a set time; when that is over, or when a second
signal comes, the process ends at once, and takes the servers that are its own with it.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Final

from loguru import logger

from tocsin.storage.server_process import end_all

_SERVERS_END_S: Final = 3.0


class Stopping:
    """The signals of one process. Handlers run in its main thread."""

    def __init__(self) -> None:
        self.asked = False
        self._ending = False
        self._limit_s = 0.0
        self._tell: Callable[[], object] | None = None
        self._watch: threading.Timer | None = None

    def listen(self) -> None:
        """From here on signals are this object's. Until `to` is called, the first one ends the process in order."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)

    def to(self, tell: Callable[[], object], limit_s: float) -> None:
        """Who is told of the first signal, and how long after it the process is ended, should it not have stopped."""
        self._tell, self._limit_s = tell, limit_s

    def within(self, limit_s: float) -> None:
        """Gives what is still to stop `limit_s` seconds from now."""
        if self._watch is not None:
            self._watch.cancel()
        self._watch = threading.Timer(limit_s, self._too_late)
        self._watch.daemon = True
        self._watch.start()

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            logger.warning("stopped by a second signal; what was under way is taken up again at its lease's end")
            self._end()
        self.asked = True
        if self._tell is None:
            # Nothing is under way yet.
            sys.exit(0)
        self.within(self._limit_s)
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


def leave() -> None:
    """Ends a process that has stopped, though threads of it may still wait for a server that does not answer."""
    mine = (threading.current_thread(), threading.main_thread())
    if any(not thread.daemon and thread not in mine for thread in threading.enumerate()):
        logger.complete()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
