"""persist(): drains the journal to Postgres in batches, idempotently (design §5.6, F6).

Nothing leaves Redis before Postgres has committed it. A batch that Postgres refuses as data, that meets a defect of
ours or takes too long is halved until the one entry is alone: what cannot be stored is kept as bad and said aloud, what
is slow waits, and the others go on.
"""

import math
import time
from collections.abc import Sequence

from loguru import logger

from tocsin.actors.alerts import Alerts
from tocsin.actors.metrics import StoredCounters
from tocsin.actors.outages import say
from tocsin.domain.errors import PostgresAway, RedisAway, Unavailable
from tocsin.storage import persist as writer
from tocsin.storage.database import TooSlow
from tocsin.storage.facts import Entry
from tocsin.storage.store import Store

_MOST_ENTRIES = 64
_MOST_FAILURES = 5
_MOST_SLOW = 2
"""So many entries of a batch that each take too long alone: it is not they, and the rest of the batch waits too."""
_PATIENCE_MS = 1_000
"""How long half a batch waits for a row that another holds: a persister that is frozen in its transaction, perhaps."""


class Persister:
    """Drains the journal in one process, any number of drains at a time."""

    def __init__(self, store: Store, name: str, counters: StoredCounters | None = None) -> None:
        self._store = store
        self._counters = counters
        self._name = name
        self._stopped = False
        self._held_in_doubt = False
        self.alerts: Alerts | None = None

    def stop(self) -> None:
        """Ends drains after the batch that they are at; the `last` one alone goes on."""
        self._stopped = True

    async def drain(self, limit_s: float = math.inf, *, last: bool = False) -> None:
        """Stores what waits until nothing is left, until Postgres or Redis is away, or until `limit_s` has passed."""
        try:
            if self._held_in_doubt:
                await self._store.facts.give_back(self._name)
                self._held_in_doubt = False
            await self._drain(time.monotonic() + limit_s, last=last)
        except RedisAway as error:
            # What it was giving out counts as held by this process, which may never have heard of it.
            self._held_in_doubt = True
            say("the drain of the journal", error)
        except Unavailable as error:
            say("the drain of the journal", error)

    async def leave(self) -> None:
        """Lets others take at once what this process holds and has not stored; takes its name off the journal's list
        of persisters, unless it holds something."""
        try:
            await self._store.facts.give_back(self._name)
            await self._store.facts.leave(self._name)
        except Unavailable as error:
            say("the drain of the journal", error)

    async def _drain(self, until_s: float, *, last: bool) -> None:
        try:
            while time.monotonic() < until_s and (last or not self._stopped):
                # Asked first: entries of a Redis that was lost say nothing of how far the next one's journal is.
                epoch = self._store.life.known_epoch
                with self._store.life.under_way():
                    entries = await self._store.facts.take(self._name, _MOST_ENTRIES)
                    if not entries:
                        break
                    await self._store_batch(entries, [], epoch)
        except TooSlow as error:
            # What is left counts as left behind after a while; until then new entries come first.
            say("what Postgres has to learn", error)
        except PostgresAway as error:
            say("what Postgres has to learn", error)
            await self._store.facts.give_back(self._name)

    async def _store_batch(
        self, entries: Sequence[Entry], slow: list[str], epoch: str, *, patience_ms: int | None = None
    ) -> None:
        """`slow` gathers the entries that stay behind because they took too long; `epoch` is the life of Redis they are
        of. Raises Unavailable."""
        try:
            await self._store.postgres.call(writer.store, entries, epoch=epoch, patience_ms=patience_ms)
            await self._store.stored(entries)
        except TooSlow:
            if len(entries) > 1:
                await self._halve(entries, slow, epoch)
                return
            slow.append(entries[0][0])
            if len(slow) >= _MOST_SLOW:
                raise
            logger.warning("journal entry {} takes too long to store; it is tried again", entries[0][0])
        except Unavailable:
            raise
        except Exception as error:
            if len(entries) > 1:
                await self._halve(entries, slow, epoch)
            else:
                await self._fail(entries[0], error)
        else:
            if self._counters is not None:
                self._counters.stored(entries)

    async def _halve(self, entries: Sequence[Entry], slow: list[str], epoch: str) -> None:
        middle = len(entries) // 2
        for half in (entries[:middle], entries[middle:]):
            await self._store_batch(half, slow, epoch, patience_ms=_PATIENCE_MS)

    async def _fail(self, entry: Entry, error: Exception) -> None:
        """One that Postgres refuses is kept as bad. A defect of ours may be a matter of the moment: the entry stays
        and is tried again when it counts as left behind, but not for ever, for others wait for the journal to be
        drained."""
        identifier, _ = entry
        if isinstance(error, writer.Refused):
            await self._keep_as_bad(entry, str(error))
        elif await self._store.facts.failed(identifier) >= _MOST_FAILURES:
            logger.opt(exception=error).error("journal entry {} could not be stored", identifier)
            await self._keep_as_bad(entry, f"it could not be stored ({type(error).__name__})")
        else:
            logger.opt(exception=error).error("journal entry {} could not be stored; it is tried again", identifier)

    async def _keep_as_bad(self, entry: Entry, why: str) -> None:
        identifier, facts = entry
        await self._store.postgres.call(writer.refuse, identifier, facts, why)
        await self._store.facts.done([identifier])
        logger.error("the facts of journal entry {} are kept in bad_facts: {}", identifier, why)
        if self.alerts is not None:
            await self.alerts.raise_alert("bad_facts", "Facts could not be stored; they are kept in bad_facts.")
