"""Dead letters by the page: replayed or discarded, a bounded number a call, safe to repeat (R4)."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final
from uuid import UUID

from tocsin.domain.delivery import Reason
from tocsin.domain.errors import RedisAway, Unavailable
from tocsin.domain.event import Event
from tocsin.storage import dead_letters, discards, reentry, replays
from tocsin.storage.bridge import from_thread
from tocsin.storage.by import By
from tocsin.storage.dead_letters import DeadLetter, LetterFilter, LetterKind
from tocsin.storage.flight_parts import OpenFlight
from tocsin.storage.flights import Flights
from tocsin.storage.postgres import Postgres
from tocsin.storage.reentry import Reentry
from tocsin.storage.replays import Replayed
from tocsin.storage.scripts import MOST_ITEMS
from tocsin.storage.transactions import LOCKED_MS

COUNTED_UP_TO: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Rest:
    """What fits a filter behind the page that was done; `cursor` is None where nothing does."""

    remaining: int
    cursor: UUID | None


class Revival:
    """Replays and discards of one event loop. All raise PostgresAway."""

    def __init__(
        self, flights: Flights, reentry: Reentry, postgres: Postgres, catch_up: Callable[[], Awaitable[bool]]
    ) -> None:
        self._flights = flights
        self._reentry = reentry
        self._postgres = postgres
        # What the journal holds may say that a letter is not dead; one that is far behind is not waited for.
        self._catch_up = catch_up

    async def replay_one(self, delivery: UUID, by: By) -> Replayed:
        """Gives one delivery another attempt."""
        await self._catch_up()
        return await self._replay([delivery], by)

    async def replay(self, wanted: LetterFilter, limit: int, by: By) -> tuple[Replayed, Rest]:
        """Replays up to `limit` dead letters that fit. Redis away leaves deliveries waiting for it; events are refused
        then, with RedisAway."""
        await self._catch_up()
        letters = await self._page(wanted, limit)
        deliveries = [letter.id for letter in letters if letter.kind == LetterKind.DELIVERY]
        done = Replayed()
        for first in range(0, len(deliveries), MOST_ITEMS):
            done.add(await self._replay(deliveries[first : first + MOST_ITEMS], by))
        for letter in letters:
            if letter.kind == LetterKind.EVENT:
                await self._reenter(letter.id, by, done)
        done.skipped += _not_found(wanted, letters)
        return done, await self._rest(wanted, letters, limit)

    async def discard(self, wanted: LetterFilter, limit: int, reason: str, by: By) -> tuple[list[UUID], Rest]:
        """Puts up to `limit` dead letters aside that fit; answers which."""
        await self._catch_up()
        letters = await self._page(wanted, limit)
        done: list[UUID] = []
        for first in range(0, len(letters), MOST_ITEMS):
            page = [letter.id for letter in letters[first : first + MOST_ITEMS]]
            done += await self._postgres.call(discards.discard, page, reason, by)
        return done, await self._rest(wanted, letters, limit)

    async def _page(self, wanted: LetterFilter, limit: int) -> list[DeadLetter]:
        return await self._postgres.call(dead_letters.dead_letters, wanted, limit)

    async def _rest(self, wanted: LetterFilter, letters: Sequence[DeadLetter], limit: int) -> Rest:
        if len(letters) < limit:
            return Rest(0, None)
        last = letters[-1].id
        behind = replace(wanted, before=last)
        remaining = await self._postgres.call(dead_letters.count, behind, COUNTED_UP_TO)
        return Rest(remaining, last if remaining else None)

    async def _replay(self, wanted: Sequence[UUID], by: By) -> Replayed:
        restoring = from_thread(self._flights.restore_whole)
        until_ms = await self._until_ms()

        def restore(flights: Sequence[OpenFlight], events: Iterable[Event]) -> Sequence[str] | None:
            if until_ms is None:
                return None
            try:
                return restoring(flights, events, until_ms)
            except Unavailable:
                return None

        return await self._postgres.call(replays.replay_deliveries, wanted, by, restore)

    async def _reenter(self, event: UUID, by: By, done: Replayed) -> None:
        seen = await self._reentry.routed(event)
        # What was routed until now must be in Postgres, or it would be routed again.
        if not await self._catch_up():
            done.busy += 1
            return

        enter = from_thread(partial(self._reentry.enter, seen=seen))
        answer = await self._postgres.call(reentry.reenter, event, by, enter)
        done.replayed += [event] if answer == "entered" else []
        done.busy += answer == "busy"
        done.skipped += answer == "skipped"
        if answer in {Reason.CANCELLED, Reason.REPLACED}:
            done.refuse(answer)

    async def _until_ms(self) -> int | None:
        try:
            return await self._flights.now_ms() + LOCKED_MS
        except RedisAway:
            return None


def _not_found(wanted: LetterFilter, letters: Sequence[DeadLetter]) -> int:
    return len(set(wanted.ids or ()) - {letter.id for letter in letters})
