"""Marking read: what waits of a notification is cancelled, and both stores know it before the reader is answered."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from loguru import logger

from tocsin.domain.errors import PostgresAway, RedisAway
from tocsin.storage import queries
from tocsin.storage.direct import Direct
from tocsin.storage.ending import ended
from tocsin.storage.flights import Flights
from tocsin.storage.inbox import InboxLists
from tocsin.storage.inbox_queries import EXECUTE_READ, PREPARE_READ
from tocsin.storage.postgres import Postgres
from tocsin.storage.scripts import MOST_ITEMS

_TOLD_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Read:
    """What became of one notification that somebody asked to mark read."""

    id: UUID
    found: bool
    changed: bool
    read_ms: int | None


class Reading:
    """How a reader's word reaches both stores."""

    def __init__(self, flights: Flights, lists: InboxLists, postgres: Postgres) -> None:
        self._flights = flights
        self._lists = lists
        self._postgres = postgres
        self._direct = Direct(postgres, PREPARE_READ, EXECUTE_READ)
        self._telling: set[asyncio.Task[None]] = set()

    async def read(self, user: str, notifications: Sequence[UUID]) -> list[Read]:
        """Marks notifications of `user` read, in both stores before it answers. Raises RedisAway, for something may
        still go out; and PostgresAway for one that only Postgres could know."""
        answers: list[Read] = []
        for first in range(0, len(notifications), MOST_ITEMS):
            answers += await self._read(user, notifications[first : first + MOST_ITEMS])
        if any(answer.changed for answer in answers):
            # Told last: who hears of it counts in both stores. The reader knows, and does not wait for it.
            telling = asyncio.create_task(self._tell(user))
            self._telling.add(telling)
            telling.add_done_callback(self._telling.discard)
        return answers

    async def close(self) -> None:
        """Lets words to open pages get out, briefly."""
        if self._telling:
            _, late = await asyncio.wait(self._telling, timeout=_TOLD_S)
            await ended(late, _TOLD_S)
        await self._direct.close()

    async def _tell(self, user: str) -> None:
        with suppress(RedisAway):
            await self._lists.tell_of_read(user)

    async def _read(self, user: str, notifications: Sequence[UUID]) -> list[Read]:
        answers = await self._flights.read(user, [(identifier, False) for identifier in notifications])
        unseen = [note for note, answer in zip(notifications, answers, strict=True) if answer.state == "unseen"]
        found = dict(zip(notifications, answers, strict=True))
        earlier: dict[UUID, int | None] = {}
        if unseen:
            earlier = await self._owned(user, unseen)
            owned = [note for note in unseen if note in earlier and earlier[note] is None]
            if owned:
                marked = await self._flights.read(user, [(note, True) for note in owned])
                found |= dict(zip(owned, marked, strict=True))
        changed = [note for note, answer in found.items() if answer.state == "changed"]
        if changed:
            await self._read_in_postgres(user, changed, found[changed[0]].read_ms)
        return [
            Read(note, True, False, earlier[note])
            if earlier.get(note) is not None
            else Read(
                note, found[note].state in {"changed", "known"}, found[note].state == "changed", found[note].read_ms
            )
            for note in notifications
        ]

    async def _owned(self, user: str, notifications: Sequence[UUID]) -> dict[UUID, int | None]:
        """Of notifications without a flight, those that are the user's, with when they were read."""
        listed = {each.id: each.read_ms for each in await self._lists.entries(user)}
        owned = {note: listed[note] for note in notifications if note in listed}
        rest = [note for note in notifications if note not in listed]
        if rest:
            owned |= await self._postgres.call(queries.read_times, user, rest)
        return owned

    async def _read_in_postgres(self, user: str, notifications: Sequence[UUID], read_ms: int) -> None:
        if await self._direct.run(user, read_ms, list(notifications)):
            return
        try:
            await self._postgres.call(queries.read_now, user, notifications, read_ms)
        except PostgresAway as error:
            # The fact is in the journal; it is stored when Postgres is back.
            logger.debug("a read waits in the journal: {}", error)
