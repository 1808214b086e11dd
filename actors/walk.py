"""The walk of one fan-out through the audience of an event: pages from Postgres, cut into what one script takes.

Recipients who were named come first and are left out here. Up to the horizon, which is where an event came to before
Redis was lost or before a replay, so is whoever was routed then.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from tocsin.domain import ids
from tocsin.domain.audience import Audience
from tocsin.domain.event import Event
from tocsin.storage import audience
from tocsin.storage.flight_parts import IN_AUDIENCE, Progress, Walked
from tocsin.storage.scripts import MOST_ITEMS
from tocsin.storage.store import Store

PAGE: Final = 1_000
"""How many people one statement finds: few enough to be held by the hundred, many enough not to wait for Postgres."""

_MOST_LEARNT: Final = 8

_Person = tuple[str, str]


@dataclass(slots=True)
class _Learnt:
    """What a walk found out that holds for all walks of one entry of an event: who was named, and where the window
    ends in which a filter is tried."""

    named: frozenset[str] | None = None
    window: str = ""


_learnt: Final[OrderedDict[tuple[UUID, str], _Learnt]] = OrderedDict()
"""Of the events whose walks were the last; a large one is walked many times, a few pages each."""


def _learnt_of(event: UUID, entry: str) -> _Learnt:
    learnt = _learnt.setdefault((event, entry), _Learnt())
    _learnt.move_to_end((event, entry))
    if len(_learnt) > _MOST_LEARNT:
        _learnt.popitem(last=False)
    return learnt


class AudienceWalk:
    """Hands out the people behind a cursor, reading a page whenever the last one is used up."""

    def __init__(self, store: Store, event: Event, progress: Progress) -> None:
        self._store = store
        self._event = event
        self._audience = event.audience or Audience()
        self._progress = progress
        self._learnt = _learnt_of(event.id, progress.entry)
        self._cursor = ""
        self._page = audience.People([], "", last=False)
        self._matched = progress.matched

    def has_read(self, cursor: str) -> bool:
        """Whether it has people behind the cursor without reading a page."""
        return cursor == self._cursor and bool(self._page.found)

    async def following(self, cursor: str) -> Walked:
        """The people who come next. Raises PostgresAway."""
        if not self.has_read(cursor):
            await self._read(cursor.removeprefix(IN_AUDIENCE))
        some, rest = self._cut(self._page.found)
        reached = f"{IN_AUDIENCE}{some[-1][0] if rest else self._page.reached}"
        self._page = audience.People(rest, self._page.reached, self._page.last)
        self._cursor = reached
        beyond = (some[0][0] if some else self._page.reached) > self._progress.horizon
        wanted = await self._wanted(some, beyond=beyond)
        self._matched += len(wanted)
        is_last = self._page.last and not rest
        return Walked(self._progress.entry, [entry for _, entry in wanted], reached, is_last, beyond)

    async def page(self, cursor: str) -> list[Walked]:
        """All people of the page behind the cursor, as many chunks as they make. Raises PostgresAway."""
        found = [await self.following(cursor)]
        while self.has_read(found[-1].cursor):
            found.append(await self.following(found[-1].cursor))
        return found

    async def _read(self, after: str) -> None:
        of, learnt = audience.Wanted(self._event.id, self._event.type, self._audience), self._learnt
        self._page = await self._store.postgres.call(audience.page, of, after, PAGE, self._matched, learnt.window)
        learnt.window = self._page.window

    def _cut(self, people: Sequence[_Person]) -> tuple[Sequence[_Person], Sequence[_Person]]:
        """The first of `people`, at most a chunk of them and all on one side of the horizon; and the others."""
        horizon = self._progress.horizon
        size = min(len(people), MOST_ITEMS)
        before = sum(user <= horizon for user, _ in people[:size])
        size = before or size
        return people[:size], people[size:]

    async def _wanted(self, people: Sequence[_Person], *, beyond: bool) -> Sequence[_Person]:
        named = await self._named_ones()
        if named:
            people = [person for person in people if person[0] not in named]
        return people if beyond or not people else await self._not_reached_before(people)

    async def _named_ones(self) -> frozenset[str]:
        if self._learnt.named is None:
            named: frozenset[str] = frozenset()
            if self._progress.named:
                named = frozenset(await self._store.flights.named(self._event.id))
            if self._progress.named > len(named):
                # Of an event that goes on after a loss only those are entered who are still to be reached.
                named |= frozenset(await self._store.postgres.call(audience.named_in, self._event.id))
            self._learnt.named = named
        return self._learnt.named

    async def _not_reached_before(self, people: Sequence[_Person]) -> Sequence[_Person]:
        """Those whose notifications are still to be made. What else is known of them is put where route looks; what of
        it is open reconciliation puts back into motion, for it knows when nobody does that already."""
        event, users = self._event.id, [user for user, _ in people]
        known = await self._store.postgres.call(audience.before, event, users)
        notes = {user: str(ids.notification_id(event, user)) for user in users}
        moving = await self._store.motion.flights(list(notes.values()))
        refilling = self._store.refilling()
        await refilling.mark_read(known.read_ms)
        await refilling.mark_known(self._event, known.known)
        return [(user, entry) for user, entry in people if user not in known.routed and notes[user] not in moving]
