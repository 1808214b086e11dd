"""Outcomes on their way to Redis: gathered for a moment, recorded together, kept while Redis is away."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from loguru import logger

from tocsin.actors.outages import say
from tocsin.domain.errors import Unavailable
from tocsin.storage.flight_parts import Ending
from tocsin.storage.scripts import MOST_ITEMS
from tocsin.storage.store import Store

_GATHER_S = 0.02
_AWAY_S = 0.5
_TELL_S: Final = 0.1
"""How often the persister is called at most: once it is called it drains what there is."""
_AGAIN_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""After which times one that could not be recorded is tried again; by then the lease of most is over."""

_Waiting = tuple[Ending, asyncio.Future[None]]


class Recorder:
    """Records endings within 200 ms of their being known; what Redis does not take yet is kept and tried again. One
    that cannot be recorded for another reason is set apart, and holds up no other."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[_Waiting] = []
        self._flushing: asyncio.Task[None] | None = None
        self._apart: set[asyncio.Task[None]] = set()
        self._untold = False
        """Whether something was recorded that the persister was not called for."""
        self._telling: asyncio.Task[None] | None = None

    def add(self, ending: Ending) -> asyncio.Future[None]:
        """Takes an ending; it is recorded soon. Whoever wants to know when that is done, or that it cannot be for now,
        waits for the answer."""
        recorded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((ending, recorded))
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())
        return recorded

    async def close(self, limit_s: float) -> None:
        """Waits until everything is recorded, at most `limit_s` seconds; says what is not."""
        end_s = time.monotonic() + limit_s
        while (recording := self._recording()) and (left_s := end_s - time.monotonic()) > 0:
            await asyncio.wait(recording, timeout=left_s)
        late = len(self._waiting) + len(self._apart)
        for task in (*recording, *filter(None, [self._telling])):
            task.cancel()
        if late:
            logger.error("{} outcomes could not be recorded; they will show as uncertain", late)

    def _recording(self) -> set[asyncio.Task[None]]:
        under_way = set(self._apart)
        if self._flushing and not self._flushing.done():
            under_way.add(self._flushing)
        return under_way

    async def _flush(self) -> None:
        await asyncio.sleep(_GATHER_S)
        while self._waiting:
            batch = self._waiting[:MOST_ITEMS]
            try:
                await self._record(batch)
            except Unavailable as error:
                say("recording of outcomes", error)
                await asyncio.sleep(_AWAY_S)
                continue
            del self._waiting[: len(batch)]
            for _, recorded in batch:
                if not recorded.done():
                    recorded.set_result(None)
            self._untold = True
            if self._telling is None or self._telling.done():
                self._telling = asyncio.create_task(self._tell_persister())

    async def _tell_persister(self) -> None:
        """At once, and after that as long as there is more; the clock calls it too."""
        while self._untold:
            self._untold = False
            with suppress(Unavailable):
                await self._store.nudge_persister()
            await asyncio.sleep(_TELL_S)

    async def _record(self, batch: Sequence[_Waiting]) -> None:
        """Records them, but for those that cannot be. Raises Unavailable when all of them are to be recorded again,
        which changes nothing more of those that were."""
        try:
            await self._store.attempts.record([ending for ending, _ in batch])
        except Unavailable:
            raise
        except Exception:
            if len(batch) == 1:
                self._set_apart(batch[0][0])
                return
            middle = len(batch) // 2
            await self._record(batch[:middle])
            await self._record(batch[middle:])

    def _set_apart(self, ending: Ending) -> None:
        logger.exception("an outcome of {} could not be recorded; it is tried again", ending.claim.notification)
        task = asyncio.create_task(self._try_again(ending))
        self._apart.add(task)
        task.add_done_callback(self._apart.discard)

    async def _try_again(self, ending: Ending) -> None:
        for wait_s in _AGAIN_S:
            await asyncio.sleep(wait_s)
            # What fails each time has been told when it was set apart.
            with suppress(Exception):
                await self._store.attempts.record([ending])
                return
        logger.error("an outcome of {} cannot be recorded; it will show as uncertain", ending.claim.notification)
