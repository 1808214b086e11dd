"""The event loop that the actors share, in a thread of its own.

Dramatiq's AsyncIO middleware starts a loop for every Worker; with a Worker a queue that would be six of them. Its
threads hand their coroutine to this one and wait.
"""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

Answer = TypeVar("Answer")


class Loop:
    """An event loop in a daemon thread, from construction until `stop`."""

    def __init__(self) -> None:
        self.asyncio = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="actors-loop", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Waits, in another thread, for what `work` returns or raises."""
        return asyncio.run_coroutine_threadsafe(work, self.asyncio).result()

    def stop(self) -> None:
        """Ends the loop once what is running now has been given back its turn."""
        self.asyncio.call_soon_threadsafe(self.asyncio.stop)
        self._thread.join(timeout=5)

    def _run(self) -> None:
        asyncio.set_event_loop(self.asyncio)
        try:
            self.asyncio.run_forever()
        finally:
            self.asyncio.close()
