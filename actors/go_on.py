"""go_on(event, cursor): goes on with the fan-out of a large event, in turns with the others (docs/adr/0016).

Who walks through the recipients also routes the chunks that it makes, two at once, and hands over what is more to
other processes as they take it. So a walk does not stop for want of room, and no chunk costs a call unless somebody is
there to take it.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import takewhile
from typing import Final
from uuid import UUID

from tocsin.actors import queues
from tocsin.actors.fan_out import call_to_go_on, watched
from tocsin.actors.route import route
from tocsin.actors.walk import AudienceWalk
from tocsin.domain.errors import Unavailable
from tocsin.domain.event import Event
from tocsin.storage.calls import correlation
from tocsin.storage.flight_parts import IN_AUDIENCE, Chunk, Page, Progress, Walked
from tocsin.storage.found import people_of
from tocsin.storage.memory import Work
from tocsin.storage.scripts import Step
from tocsin.storage.store import Store

_TURN_S: Final = 0.25
"""How long an event is walked before the next has its turn: long beside a call, short beside the guard time."""
_AT_ONCE: Final = 2
"""Chunks that one walk routes at a time: while Redis writes one, the next is planned. With more, others would wait."""


async def go_on(store: Store, event_id: str, cursor: str) -> None:
    """Walks for a turn, from `cursor` on; from where the event is if that is empty. Does nothing where somebody else
    has gone on with it since it was called: so of any number of calls for an event one goes on."""
    identifier = UUID(event_id)
    await watched(store, identifier, _turn(store, identifier, cursor))


async def _turn(store: Store, identifier: UUID, cursor: str) -> None:
    found = await store.flights.to_fan_out(identifier)
    if found is None or cursor not in {"", found[1].cursor}:
        return
    event, progress = found
    correlation.set(event.cid)
    turn = _Turn(store, event, progress)
    try:
        await turn.walk(time.monotonic() + _TURN_S)
    finally:
        await turn.end()


class _Turn:
    """One turn of an event: people who are found and not made chunks yet, a page that is being read meanwhile, the
    chunks that it routes itself, and calls that go out with its next word to Redis."""

    def __init__(self, store: Store, event: Event, progress: Progress) -> None:
        self._store = store
        self._event = event
        self._walk = AudienceWalk(store, event, progress)
        self._cursor = progress.cursor
        self._found: Sequence[Walked] = []
        self._reading: asyncio.Task[list[Walked]] | None = None
        self._routing: set[asyncio.Task[None]] = set()
        self._calls: list[Step] = []

    async def walk(self, until_s: float) -> None:
        """Makes chunks until the last one, until `until_s` on the monotonic clock and the end of a page of the
        audience, or until enough are open that others route. Raises Unavailable."""
        while True:
            await self._store.memory.check(Work.PLAN)
            state = await self._step(until_s)
            if state == "pause" and self._routing:
                await self._one_routed()
            elif state != "more":
                return
            elif time.monotonic() >= until_s and not self._found and self._reading is None:
                self._calls.append(call_to_go_on(self._store, self._event, self._cursor))
                return

    async def end(self) -> None:
        """Waits for what it routes itself, and calls whoever has something to do then."""
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._routing:
            await asyncio.wait(self._routing)
        with suppress(Unavailable):
            await self._store.calls.put_all(self._calls)

    async def _step(self, until_s: float) -> str:
        """Makes chunks of who comes next, and passes them on. Answers the state of the last page that was asked for."""
        if self._cursor.startswith(IN_AUDIENCE) and not self._found:
            reading, self._reading = self._reading, None
            self._found = await (reading or self._walk.page(self._cursor))
        pages, found = await self._take(), self._found
        made = list(takewhile(lambda page: page.state in {"more", "last"}, pages))
        if made:
            self._cursor, self._found = made[-1].cursor, found[len(made) :]
            if found and not self._found and made[-1].state == "more" and time.monotonic() < until_s:
                self._reading = asyncio.create_task(self._walk.page(self._cursor))
        await self._pass_on(made, found or [None])
        return pages[min(len(made), len(pages) - 1)].state

    async def _take(self) -> list[Page]:
        calls = self._calls.copy()
        self._calls.clear()
        if self._found:
            return await self._store.flights.take_pages(self._event, self._cursor, self._found, calls)
        return [await self._store.flights.take_page(self._event, self._cursor, beside=calls)]

    async def _pass_on(self, pages: Sequence[Page], found: Sequence[Walked | None]) -> None:
        """Begins to route what was made, as soon as there is a hand free, here or elsewhere."""
        for page, walked in zip(pages, found, strict=False):
            if page.chunk is None or await self._is_handed_over(page, page.chunk):
                continue
            while len(self._routing) >= _AT_ONCE:
                await self._one_routed()
            self._begin(page.chunk, walked)

    async def _is_handed_over(self, page: Page, chunk: int) -> bool:
        """Whether another process has it routed: where all hands are full here, and no more wait in the queue of those
        who route than there are other processes."""
        if len(self._routing) < _AT_ONCE or page.processes < 2:
            return False
        call, others = (queues.ROUTE, "route", str(self._event.id), chunk), page.processes - 1
        return await self._store.calls.put(*call, most_waiting=others)

    def _begin(self, chunk: int, walked: Walked | None) -> None:
        event = self._event
        known = Chunk(event, walked.entry, people_of(f"[{','.join(walked.people)}]"), {}) if walked else None
        task = asyncio.create_task(route(self._store, str(event.id), chunk, known, self._calls))
        self._routing.add(task)
        task.add_done_callback(self._routing.discard)

    async def _one_routed(self) -> None:
        await asyncio.wait(self._routing, return_when=asyncio.FIRST_COMPLETED)
