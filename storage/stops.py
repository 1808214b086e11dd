"""Stopping in Redis (S7): each event by a mark, and what a filter finds by one mark of the filter's own, until every
event has one. Both hold from the moment they are made, whatever Postgres knows by then, and every script that starts
something honours them (lua/steps.lua).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from tocsin.domain.errors import TooManyFilters
from tocsin.storage.cancellations import Cancellation
from tocsin.storage.flights import Flights
from tocsin.storage.keys import Keys
from tocsin.storage.people import People
from tocsin.storage.redis import told
from tocsin.storage.scripts import MOST_ITEMS, Scripts

_NO_FILTER: Final = ("", "", "", "", "", "", "")
_MOST_FIELDS: Final = 4_000
"""About a thousand filters. Redis compares what starts with each filter for all people, 2 µs each."""


class Stops:
    """All raise RedisAway and Overloaded."""

    def __init__(self, client: Any, keys: Keys, scripts: Scripts, flights: Flights, people: People) -> None:
        self._client = client
        self._keys = keys
        self._scripts = scripts
        self._flights = flights
        self._people = people

    async def begin(self, asked: Cancellation) -> None:
        """Stops what is wanted, at most 100 events or what a filter finds, and tells Postgres of it, so that it comes
        to its end whoever dies now. Raises TooManyFilters."""
        marks, facts = await self._marks(asked.wanted.events, asked.reason, asked.by, asked.at_ms)
        begun = asked.as_fact()
        if await self._scripts.run("stop", _text(begun), *self._filter(asked, _MOST_FIELDS), *marks) == -1:
            raise TooManyFilters("so many filters hold that nothing more is stopped by one")
        self._scripts.life.remember(*facts, begun)

    async def hold(self, asked: Cancellation) -> None:
        """Stops what a filter finds, should Redis not know of it any more, however many there are: it was answered."""
        if not asked.wanted.events:
            await self._scripts.run("stop", "", *self._filter(asked))

    async def withdraw(self, events: Sequence[UUID], reason: str, by: str, at_ms: int) -> int:
        """Withdraws events: from now on nothing of them starts. What waits is ended when its time comes, or before that
        by actors/cancelling.py. Answers how many were not withdrawn before."""
        fresh = 0
        for first in range(0, len(events), MOST_ITEMS):
            marks, facts = await self._marks(events[first : first + MOST_ITEMS], reason, by, at_ms)
            fresh += int(await self._scripts.run("stop", "", *_NO_FILTER, *marks))
            self._scripts.life.remember(*facts)
        return fresh

    async def let_go(self, identifier: UUID) -> int:
        """Forgets a filter of which all is stopped. Answers how many events were marked by it."""
        return int(await self._scripts.run("unstop", identifier))

    async def held(self) -> list[UUID]:
        """The cancellations whose filters hold."""
        with told():
            fields = await self._client.hkeys(self._keys.stops)
        return [UUID(field) for field in fields if "|" not in field and ":" not in field]

    async def _marks(
        self, events: Sequence[UUID], reason: str, by: str, at_ms: int
    ) -> tuple[list[object], list[dict[str, Any]]]:
        """What stop.lua is given of events, and the facts of it. A mark outlasts the last step."""
        known = await self._people.events(events)
        facts: list[dict[str, Any]] = [
            {"f": "cancelled", "e": str(event), **_said(reason, by, at_ms)} for event in events
        ]
        marks: list[object] = []
        for event, fact in zip(events, facts, strict=True):
            keep_ms = self._flights.keep_ms(known[event]) if event in known else 0
            marks += [event, max(keep_ms, self._flights.longest_ms), _text(fact)]
        return marks, facts

    def _filter(self, asked: Cancellation, most_fields: int | str = "") -> tuple[object, ...]:
        """What stop.lua is given of a filter; nothing where events are named."""
        wanted = asked.wanted
        if wanted.events:
            return _NO_FILTER
        rest = _text(_said(asked.reason, asked.by, asked.at_ms))[1:]
        place = f"{wanted.type or ''}|{wanted.user or ''}"
        return (asked.id, place, *wanted.range, rest, self._flights.longest_ms, most_fields)


def _said(reason: str, by: str, at_ms: int) -> dict[str, Any]:
    return {"at": at_ms, "reason": reason, "by": by}


def _text(fact: Mapping[str, Any]) -> str:
    return json.dumps(fact, separators=(",", ":"))
