"""Dramatiq's Worker, whose threads sleep until there is a call.

Those of a stock one look up again and again, which for the dozen threads of one process that has nothing to do was a
seventh of all that it cost.
"""

from queue import Empty, PriorityQueue
from typing import Any, Final

from dramatiq import Broker, Worker

_WAKES_MS: Final = 60_000
"""How long a thread sleeps at most. Nothing depends on it."""
_STOP_MS: Final = 600_000


class WakingWorker(Worker):
    """A Worker of one queue. It stops as soon as what its threads do is done."""

    def __init__(self, broker: Broker, queue: str, threads: int) -> None:
        super().__init__(broker, queues={queue}, worker_threads=threads, worker_timeout=_WAKES_MS)
        self._waiting = self.work_queue = _Waiting()

    def stop(self, timeout: int = _STOP_MS) -> None:
        """Waits at most `timeout` ms for the threads, and as long for the consumer."""
        self._waiting.end()
        super().stop(timeout)


class _Waiting(PriorityQueue[Any]):
    """Calls on their way to threads. After `end` nobody waits for one any more."""

    _ended = False

    def end(self) -> None:
        """Wakes whoever waits."""
        with self.mutex:
            self._ended = True
            self.not_empty.notify_all()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """The next call. Raises Empty where none comes in `timeout` seconds, or the end."""
        with self.not_empty:
            if block and not self._qsize() and not self._ended:
                self.not_empty.wait(timeout)
            if not self._qsize():
                raise Empty
            call = self._get()
            self.not_full.notify()
            return call
