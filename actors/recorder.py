"""Outcomes on their way to Redis: gathered for a moment, recorded together, kept while Redis is away."""

import asyncio
from contextlib import suppress

from loguru import logger

from tocsin.actors.outages import say
from tocsin.domain.errors import Unavailable
from tocsin.storage.flight_parts import Ending
from tocsin.storage.scripts import MOST_ITEMS
from tocsin.storage.store import Store

_GATHER_S = 0.02
_AWAY_S = 0.5


class Recorder:
    """Records endings within 200 ms of their being known; what Redis does not take yet is kept and tried again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[tuple[Ending, asyncio.Future[None]]] = []
        self._flushing: asyncio.Task[None] | None = None

    def add(self, ending: Ending) -> asyncio.Future[None]:
        """Takes an ending; it is recorded soon. Whoever wants to know when that is done waits for the answer."""
        recorded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((ending, recorded))
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())
        return recorded

    async def close(self, limit_s: float) -> None:
        """Waits until everything is recorded, at most `limit_s` seconds; says what is not."""
        if self._flushing is not None:
            await asyncio.wait({self._flushing}, timeout=limit_s)
            self._flushing.cancel()
        if self._waiting:
            logger.error("{} outcomes could not be recorded; they will show as uncertain", len(self._waiting))

    async def _flush(self) -> None:
        await asyncio.sleep(_GATHER_S)
        together = MOST_ITEMS
        while self._waiting:
            batch = self._waiting[:together]
            try:
                await self._store.attempts.record([ending for ending, _ in batch])
            except Unavailable as error:
                say("recording of outcomes", error)
                await asyncio.sleep(_AWAY_S)
                continue
            except Exception:
                logger.exception("outcomes could not be recorded; they are tried again one by one")
                # The one that cannot be comes to stand behind the others.
                together = 1
                self._waiting.append(self._waiting.pop(0))
                await asyncio.sleep(_AWAY_S)
                continue
            del self._waiting[: len(batch)]
            for _, recorded in batch:
                if not recorded.done():
                    recorded.set_result(None)
            # The clock calls the persister too.
            with suppress(Unavailable):
                await self._store.nudge_persister()
