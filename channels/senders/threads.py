"""Threads for SDKs that block, a bounded number for each sender.

Not concurrent.futures: its threads hold up the end of the process for as long as a provider keeps one of them waiting.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class NotBegun(Exception):
    """Time was up before a thread was free: nothing has been done."""


class StillRunning(Exception):
    """Time was up while the work was under way; it goes on, and nobody waits for it."""


class _Job(Generic[T]):
    """Work for a thread, and who waits for it. Whether it is begun or given up is decided once."""

    def __init__(self, work: Callable[[], T], loop: asyncio.AbstractEventLoop) -> None:
        self.answer: asyncio.Future[T] = loop.create_future()
        self._work = work
        self._loop = loop
        self._deciding = threading.Lock()
        self._begun = False
        self._given_up = False

    def do(self) -> None:
        """In a thread: does the work, unless nobody waits for it any more."""
        with self._deciding:
            if self._given_up:
                return
            self._begun = True
        try:
            result = self._work()
        except BaseException as error:  # handed to whoever waits
            self._hand_over(self.answer.set_exception, error)
        else:
            self._hand_over(self.answer.set_result, result)

    def give_up(self) -> bool:
        """From now on it is not begun any more; False where it was."""
        with self._deciding:
            self._given_up = True
            return not self._begun

    def time_is_up(self) -> None:
        """On the loop."""
        if not self.answer.done():
            self.answer.set_exception(NotBegun() if self.give_up() else StillRunning())

    def _hand_over(self, end: Callable[[Any], None], value: object) -> None:
        def known() -> None:
            if not self.answer.done():
                end(value)

        # A loop that is closed waits for nothing.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(known)


class Threads:
    """At most `count` daemon threads, started as they are needed."""

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._jobs: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    async def run(self, work: Callable[[], T], timeout_s: float) -> T:
        """What `work` returns or raises. Raises NotBegun or StillRunning after `timeout_s` seconds."""
        loop = asyncio.get_running_loop()
        job = _Job(work, loop)
        self._start_thread()
        self._jobs.put(job)
        timer = loop.call_later(max(0, timeout_s), job.time_is_up)
        try:
            return await job.answer
        except asyncio.CancelledError:
            job.give_up()
            raise
        finally:
            timer.cancel()

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
        while (job := self._jobs.get()) is not None:
            job.do()
            del job
