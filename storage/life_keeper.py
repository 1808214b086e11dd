"""Looks once a second which life of Redis this is, tells Postgres, and testifies when Redis was lost (docs/adr/0005).

Run by every process that has a store, whatever else it does; the rebuild itself is actors/rebuild.py.
"""

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from loguru import logger

from tocsin.domain.errors import PostgresAway, RedisAway, Unavailable
from tocsin.storage import lives, persist
from tocsin.storage.ending import ended
from tocsin.storage.life import UNKNOWN, Life, Told
from tocsin.storage.postgres import Postgres
from tocsin.storage.redis import up_s
from tocsin.storage.scripts import MOST_ITEMS, Scripts, Step

_LOOK_S: Final = 1.0
_LOST_LOOK_S: Final = 0.2
_BEAT_EVERY: Final = 5
"""Looks between two words to Postgres."""
_SETTLE_S: Final = 4.0
_LEAVE_S: Final = 1.0
_ALONE: Final = frozenset({"accepted", "callback"})
"""Facts that are an entry of their own when they are told again: large, or of somebody else's making."""


@dataclass(frozen=True, slots=True)
class Look:
    """What Redis says of itself; `oldest_ms` is None when the journal is empty. `expected` is how far this process knew
    the journal of that life to be before it asked: meanwhile others may hear of more."""

    epoch: str
    reached: int
    expected: int
    now_ms: int
    oldest_ms: int | None
    coming: str


class LifeKeeper:
    """Keeps one store's Life true. `name` is the process's, among the witnesses."""

    def __init__(self, life: Life, scripts: Scripts, postgres: Postgres, name: str) -> None:
        self._life = life
        self._scripts = scripts
        self._postgres = postgres
        self._name = name
        self._told_again = ""
        self._testified = ""
        self._beats = 0
        self._storing = asyncio.Lock()

    async def learn(self) -> None:
        """Finds out which life this is, as far as that is known now."""
        self._life.adopt(UNKNOWN, 0)
        with suppress(Unavailable):
            await self.look()

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            try:
                await self._look_if_there()
            except Exception:
                logger.exception("looking which life of Redis this is failed")
            if self._life.is_lost:
                await asyncio.sleep(_LOST_LOOK_S)
            else:
                await self._life.doubted(_LOOK_S)

    async def _look_if_there(self) -> None:
        try:
            await self.look()
        except Unavailable as error:
            logger.debug("looking which life of Redis this is waits: {}", error)
            with suppress(PostgresAway):
                # Whoever rebuilds Redis afterwards waits for what this process knows.
                await self._postgres.call(lives.seen, self._name)
                await self.store_resting()

    async def store_resting(self) -> None:
        """Stores itself what only Redis was told of, now that Redis is away: a request that comes again finds its key
        in Postgres. Raises PostgresAway."""
        async with self._storing:
            while facts := self._life.resting()[:MOST_ITEMS]:
                await self._postgres.call(_store, facts)
                self._life.forget(facts)

    async def look(self) -> None:
        """One look, and what follows from it. Raises Unavailable."""
        life, found = self._life, await self._ask()
        if not life.is_lost and found.epoch == life.epoch and found.reached >= found.expected:
            life.follow(found.reached)
            life.stored_before(found.oldest_ms, found.now_ms)
            await self._beat(found)
        else:
            await self._judge(found)

    async def leave(self) -> None:
        """Takes this process off the witnesses, unless what it told is not stored by then."""
        leaving = asyncio.create_task(self._leave())
        await asyncio.wait({leaving}, timeout=_LEAVE_S)
        await ended([leaving], _LEAVE_S / 2)

    async def _leave(self) -> None:
        with suppress(Unavailable):
            while not await self._has_nothing_to_tell():
                if self._testified and self._testified == self._life.coming:
                    return
                await asyncio.sleep(_LOST_LOOK_S)
            await self._postgres.call(lives.leave, self._name)

    async def _has_nothing_to_tell(self) -> bool:
        life, found = self._life, await self._ask()
        if found.epoch == life.epoch and found.reached >= found.expected:
            life.stored_before(found.oldest_ms, found.now_ms)
        else:
            # Lost as this process stops: nobody else can tell what it knows.
            await self._judge(found)
        return not life.testimony()

    async def _ask(self) -> Look:
        known, expected = self._life.epoch, self._life.reached
        try:
            epoch, reached, now_ms, oldest_ms, coming = await self._scripts.run("life")
        except RedisAway:
            self._life.answered(now=False)
            raise
        self._life.answered(now=True)
        expected = expected if epoch == known else 0
        return Look(epoch, int(reached), expected, int(now_ms), int(oldest_ms) if oldest_ms else None, coming)

    async def _beat(self, found: Look) -> None:
        self._beats += 1
        if self._beats % _BEAT_EVERY != 1:
            return
        age_ms = 0 if found.oldest_ms is None else max(0, found.now_ms - found.oldest_ms)
        try:
            known = await self._postgres.call(lives.beat, self._name, age_ms, found.epoch)
        except PostgresAway:
            # At the next look again: whoever is not seen once Postgres is back counts as silent before long.
            self._beats = 0
            return
        self._life.follow(known.mark)
        if known.newest != found.epoch:
            await self._judge(await self._ask())

    async def _judge(self, found: Look) -> None:
        """Redis is not as it was known: either another life has begun, or this is no life."""
        if found.epoch:
            if await self._is_right(found):
                return
        elif not self._life.coming and await self._begin_first():
            return
        coming = await self._scripts.run("lose", found.epoch, uuid4().hex[:12])
        if coming:
            if coming != self._life.coming:
                logger.warning("Redis was emptied or is an older one; what was in motion is rebuilt from Postgres")
            self._life.coming = coming
            await self._testify(coming)

    async def _is_right(self, found: Look) -> bool:
        """Whether the life that Redis names is the newest, and Redis is not an older one; then it is this process's."""
        life = self._life
        try:
            known = await self._postgres.call(lives.known, found.epoch)
            if not known.newest and await self._postgres.call(lives.begin_first, found.epoch):
                known = lives.Known(found.epoch, 0)
        except PostgresAway:
            # A process that starts now has nothing else to go by; its first word to Postgres proves it right or wrong.
            if life.epoch == UNKNOWN and not life.coming:
                life.adopt(found.epoch, found.reached)
            return found.reached >= found.expected
        # Asked once more: what Postgres knows of by now came after the look.
        again = await self._ask()
        if again.epoch != found.epoch:
            return True
        if known.newest != again.epoch or again.reached < max(known.mark, again.expected):
            return False
        if life.epoch not in {UNKNOWN, again.epoch}:
            await self._tell_again(again.epoch)
        if life.coming or life.epoch not in {UNKNOWN, again.epoch}:
            logger.info("Redis has what is in motion again; this process goes on")
        life.adopt(again.epoch, again.reached)
        return True

    async def _begin_first(self) -> bool:
        """Begins the first life of all, in which there is nothing to rebuild."""
        try:
            if not await self._postgres.call(lives.is_new):
                return False
            coming = await self._scripts.run("lose", "", uuid4().hex[:12])
            if not coming or not await self._postgres.call(lives.begin_first, coming):
                return False
        except PostgresAway:
            return False
        if await self._scripts.run("live", coming) == "1":
            self._life.adopt(coming, 0)
            return True
        return False

    async def _testify(self, coming: str) -> None:
        """Tells again what may not be stored, and says so."""
        if self._testified == coming:
            return
        with suppress(PostgresAway):
            # One that started while Postgres was away is no witness yet, and nobody would wait for it.
            await self._postgres.call(lives.seen, self._name)
        finished = await self._life.finished(_SETTLE_S)
        await self._tell_again(coming)
        with suppress(PostgresAway):
            await self._postgres.call(lives.testify, self._name, coming, complete=finished and self._life.complete)
            self._testified = coming

    async def _tell_again(self, coming: str) -> None:
        if self._told_again == coming:
            return
        entries = list(_entries(self._life.testimony()))
        for first in range(0, len(entries), MOST_ITEMS):
            await self._scripts.run_in_turn([Step("tell", each) for each in entries[first : first + MOST_ITEMS]])
        self._life.told_again()
        self._told_again = coming
        if entries:
            logger.info("{} facts that may not have been stored are told again", len(self._life.testimony()))


def _store(facts: Sequence[Told]) -> None:
    """What Postgres refuses stays in the journal, whose drain keeps it as bad."""
    try:
        persist.store([("", facts)])
    except persist.Refused:
        for fact in facts:
            with suppress(persist.Refused):
                persist.store([("", [fact])])


def _entries(facts: Sequence[Told]) -> list[list[str]]:
    """Facts as entries of the journal."""
    entries: list[list[str]] = []
    gathered: list[str] = []
    for fact in facts:
        text = json.dumps(fact, separators=(",", ":"))
        if fact["f"] in _ALONE:
            entries.append([text])
            continue
        gathered.append(text)
        if len(gathered) == MOST_ITEMS:
            entries.append(gathered)
            gathered = []
    return [*entries, gathered] if gathered else entries


async def settled_s(client: Any, life: Life) -> float:
    """For how many seconds Redis has been there for this process: since it started, and since it answered again, for
    while it loads what it had it is not there, and has started. Raises RedisAway."""
    return min(await up_s(client), life.in_touch_s)
