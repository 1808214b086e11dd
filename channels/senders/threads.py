"""Threads for SDKs that block, a bounded number for each sender.

Not concurrent.futures: its threads hold up the end of the process for as long as a provider keeps one of them waiting.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
_Job = tuple[Future[Any], Callable[[], Any]]


class NotBegun(Exception):
    """Time was up before a thread was free: nothing has been done."""


class StillRunning(Exception):
    """Time was up while the work was under way; it goes on, and nobody waits for it."""


class Threads:
    """At most `count` daemon threads, started as they are needed."""

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    async def run(self, work: Callable[[], T], timeout_s: float) -> T:
        """What `work` returns or raises. Raises NotBegun or StillRunning after `timeout_s` seconds."""
        job: Future[T] = Future()
        self._start_thread()
        self._jobs.put((job, work))
        waiting = asyncio.wrap_future(job)
        try:
            await asyncio.wait({waiting}, timeout=max(0, timeout_s))
        except asyncio.CancelledError:
            job.cancel()
            waiting.add_done_callback(_read)
            raise
        if waiting.done():
            return waiting.result()
        if job.cancel():
            raise NotBegun
        waiting.add_done_callback(_read)
        raise StillRunning

    def close(self) -> None:
        """Lets the threads end as their work does."""
        for _ in self._threads:
            self._jobs.put(None)

    def _start_thread(self) -> None:
        if len(self._threads) < self._count:
            number = len(self._threads) + 1
            thread = threading.Thread(target=self._work, name=f"{self._name}-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while (taken := self._jobs.get()) is not None:
            job, work = taken
            if not job.set_running_or_notify_cancel():
                continue
            try:
                result = work()
            except BaseException as error:  # handed to whoever waits
                job.set_exception(error)
            else:
                job.set_result(result)
            del job, work, taken


def _read(abandoned: asyncio.Future[Any]) -> None:
    """Takes an end that nobody waits for, lest asyncio complain of it."""
    if not abandoned.cancelled():
        abandoned.exception()
