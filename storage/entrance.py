"""Where accepted events enter Redis: those of one commit in one trip, with the calls to their fan-out."""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from loguru import logger

from tocsin.domain.errors import RedisAway, Unavailable
from tocsin.storage.accepted import Accepted
from tocsin.storage.calls import Calls
from tocsin.storage.flights import Flights
from tocsin.storage.scripts import MOST_ITEMS, Scripts, Step

_QUIET_S = 60.0
_MOST_TOGETHER = 20


class Entrance:
    """Enters events on one event loop. A trip of its own for each would cost more than the rest of accepting."""

    def __init__(self, scripts: Scripts, flights: Flights, calls: Calls) -> None:
        self._scripts = scripts
        self._flights = flights
        self._calls = calls
        self._said_s = -_QUIET_S

    async def enter(self, rows: Sequence[Accepted]) -> None:
        """Enters events that Postgres has. One that Redis does not take now is entered by a job later."""
        try:
            answers = await self._scripts.run_all([*map(self._entering, rows), *self._calls_to(rows)])
        except RedisAway:
            self._say("events are stored; they start when Redis is back")
            return
        if refused := [answer for answer in answers if isinstance(answer, Exception)]:
            self._say(f"events are stored and start later, for Redis refuses: {type(refused[0]).__name__}")

    async def enter_alone(self, row: Accepted, fact: dict[str, Any]) -> None:
        """Enters an event that only Redis has, with the fact for Postgres. Raises RedisAway and Overloaded."""
        await self._flights.accept(row.event, row.recipients, fact)
        # It lies in `due` by now: a call that fails is made again soon.
        with suppress(Unavailable):
            await self._calls.put("fan_out", "fan_out", str(row.event.id))

    def _say(self, what: str) -> None:
        """Warns, unless that was done within the last minute (R2)."""
        now_s = time.monotonic()
        if now_s - self._said_s >= _QUIET_S:
            self._said_s = now_s
            logger.warning(what)

    def _entering(self, row: Accepted) -> Step:
        return self._flights.accepting(row.event, row.recipients, None)

    def _calls_to(self, rows: Sequence[Accepted]) -> Iterator[Step]:
        """Calls to the fan-out, each of a few events that are worked on together."""
        for group in _groups(rows):
            cid = group[0].event.cid if len(group) == 1 else "-"
            yield self._calls.step("fan_out", "fan_out", *(str(row.event.id) for row in group), cid=cid)


def _groups(rows: Sequence[Accepted]) -> Iterator[list[Accepted]]:
    """Up to so many that other processes get some too, and that their people are about one chunk."""
    group, people = list[Accepted](), 0
    for row in rows:
        more = len(row.recipients) if row.event.audience is None else MOST_ITEMS
        if group and (len(group) == _MOST_TOGETHER or people + more > MOST_ITEMS):
            yield group
            group, people = [], 0
        group.append(row)
        people += more
    if group:
        yield group
