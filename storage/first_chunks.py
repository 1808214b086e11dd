"""The first chunk of each of several events, in one trip for all of them: most events have no other."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from tocsin.storage.flight_parts import Chunk, Page, Routed, Routing
from tocsin.storage.flights import Flights
from tocsin.storage.scripts import Scripts, Step


@dataclass(frozen=True, slots=True)
class First:
    """What became of the beginning of an event's fan-out, and the chunk that was made, as far as it could be read."""

    page: Page
    chunk: Chunk | None


class FirstChunks:
    """Makes and routes them. Raises RedisAway. What is refused of one event holds no other up, and is left out: who
    works on that event alone meets it again, and is told why."""

    def __init__(self, scripts: Scripts, flights: Flights) -> None:
        self._scripts = scripts
        self._flights = flights

    async def make(self, events: Sequence[UUID]) -> dict[UUID, First]:
        """Makes the recipients of each event who were named first a chunk, unless that was done."""
        steps = [self._flights.making_first(event) for event in events]
        # A Redis that knows the first script and not yet the other has only what is behind that done again.
        answers = await self._scripts.run_all([*(page for page, _ in steps), *(chunk for _, chunk in steps)])
        answered = zip(events, answers, answers[len(events) :], strict=False)
        return {event: _first(paged, told) for event, paged, told in answered if not isinstance(paged, Exception)}

    async def route(
        self, planned: Sequence[tuple[Chunk, Sequence[Routing]]], beside: Sequence[Step]
    ) -> dict[UUID, Routed | None]:
        """`Flights.route` of each, by event. What is `beside` is sent with them."""
        steps = [self._flights.routing(chunk.event, 0, routings, chunk.entry) for chunk, routings in planned]
        answers = await self._scripts.run_all([*steps, *beside])
        return {
            chunk.event.id: Routed.of(answer)
            for (chunk, _), answer in zip(planned, answers, strict=False)
            if not isinstance(answer, Exception)
        }


def _first(paged: Sequence[str], told: Any) -> First:
    """What both scripts answered. Numbers of chunks go on when an event is entered anew: then another one was read."""
    page = Page.of(paged)
    if page.chunk == 0 and not isinstance(told, Exception):
        # What is kept of an event may not be readable.
        with suppress(ValueError):
            return First(page, Chunk.of(told))
    return First(page, None)
