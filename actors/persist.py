"""persist(): drains the journal to Postgres in batches, idempotently (design §5.6, F6).

Nothing leaves Redis before Postgres has committed it. A batch that Postgres refuses as data is halved until the one bad
entry is alone; that one is kept as bad and said aloud, the others go on.
"""

import math
import time
from collections.abc import Sequence

from loguru import logger

from tocsin.actors.outages import say
from tocsin.domain.errors import PostgresAway, Unavailable
from tocsin.storage import persist as writer
from tocsin.storage.facts import Entry
from tocsin.storage.store import Store

_MOST_ENTRIES = 64


class Persister:
    """Drains the journal in one process, any number of drains at a time."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name

    async def drain(self, limit_s: float = math.inf) -> None:
        """Stores what waits until nothing is left, until Postgres or Redis is away, or until `limit_s` has passed."""
        try:
            await self._drain(time.monotonic() + limit_s)
        except Unavailable as error:
            say("the drain of the journal", error)

    async def leave(self) -> None:
        """Takes this process's name off the journal's list of persisters, unless it still holds entries."""
        try:
            await self._store.facts.leave(self._name)
        except Unavailable as error:
            say("the drain of the journal", error)

    async def _drain(self, until_s: float) -> None:
        try:
            while time.monotonic() < until_s and (entries := await self._store.facts.take(self._name, _MOST_ENTRIES)):
                await self._store_batch(entries)
        except PostgresAway as error:
            say("what Postgres has to learn", error)
            await self._store.facts.give_back(self._name)

    async def _store_batch(self, entries: Sequence[Entry]) -> None:
        try:
            await self._store.postgres.call(writer.store, entries)
        except Unavailable:
            raise
        except Exception as error:
            if len(entries) > 1:
                middle = len(entries) // 2
                await self._store_batch(entries[:middle])
                await self._store_batch(entries[middle:])
            elif isinstance(error, writer.Refused):
                await self._refuse(entries[0], error)
            else:
                # A defect of ours: the entry stays, and is tried again when it counts as left behind.
                logger.exception("journal entry {} could not be stored", entries[0][0])
            return
        await self._store.stored(entries)

    async def _refuse(self, entry: Entry, refusal: writer.Refused) -> None:
        identifier, facts = entry
        await self._store.postgres.call(writer.refuse, identifier, facts, str(refusal))
        await self._store.facts.done([identifier])
        logger.error("Postgres refused the facts of journal entry {} as data; they are kept in bad_facts", identifier)
