"""Reconciliation of events that are complete: are all their notifications there, and are they counted right (R6)?

Rows that were dropped with their time are no difference, and their counts stay as they are.
"""

from collections.abc import Iterator, Sequence
from typing import Final
from uuid import UUID

from tocsin.actors.reentering import reenter
from tocsin.actors.rounds import Round
from tocsin.domain import ids
from tocsin.storage import partitions, queries
from tocsin.storage.completed import Completed, completed, made
from tocsin.storage.database import TooSlow
from tocsin.storage.scripts import MOST_ITEMS

_COMPLETED: Final = "completed"
_FIRST_LOOK_MS: Final = 86_400_000
_MOST_EVENTS: Final = 1_000
_ROWS_AT_ONCE: Final = 100_000
"""How many notifications are counted in one statement, but for an event that has more by itself."""
_JOINED_MS: Final = 600_000
"""For how long after its fan-out who is found in an event's audience counts as missing, and not as somebody who joined
since."""


async def find_short(round_: Round) -> None:
    """Counts the rows of events whose fan-out ended since the last run; of a few that ended lately before the first."""
    now_ms = await round_.store.flights.now_ms()
    if not await round_.caught_up():
        return
    known = await round_.store.postgres.call(partitions.known)
    at_ms, _, event = round_.place.cursors.get(_COMPLETED, "").partition(".")
    after = (int(at_ms), event) if event else None
    for _ in range(_MOST_EVENTS // MOST_ITEMS):
        page = await round_.store.postgres.call(completed, after, now_ms, now_ms - _FIRST_LOOK_MS, MOST_ITEMS)
        for group in _groups(page):
            await _look(round_, group, known, now_ms)
            after = group[-1].completed_ms, str(group[-1].event)
            round_.place.cursors[_COMPLETED] = f"{after[0]}.{after[1]}"
            if round_.is_over():
                return
        if len(page) < MOST_ITEMS:
            return


def _groups(page: Sequence[Completed]) -> Iterator[list[Completed]]:
    """Events that are counted in one statement."""
    group: list[Completed] = []
    for each in page:
        if group and sum(other.expected for other in group) + each.expected > _ROWS_AT_ONCE:
            yield group
            group = []
        group.append(each)
    if group:
        yield group


async def _look(round_: Round, group: Sequence[Completed], known: Sequence[partitions.Partition], now_ms: int) -> None:
    events = [each.event for each in group]
    kept = {event for event in events if partitions.is_covered(known, ids.start_ms(event))}
    there = await _made(round_, events)
    for each in group:
        missing = each.expected - there[each.event]
        if missing > 0 and (each.event in kept or there[each.event]):
            young = now_ms - each.completed_ms < _JOINED_MS
            entered = await reenter(round_.store, each.event, exact=False, walk=young) if round_.mend else 0
            round_.found("unrouted", str(each.event), count=missing, repaired=entered > 0)
    await _recount(round_, [event for event in events if event in kept])


async def _made(round_: Round, events: Sequence[UUID]) -> dict[UUID, int]:
    """By the rows; where Postgres cannot count those in time, by what was counted as they were made."""
    try:
        return await round_.store.postgres.call(made, events)
    except TooSlow:
        round_.skipped("unrouted", len(events))
        counts = await round_.store.postgres.call(queries.counts_of, events)
        return {event: found.notifications for event, found in counts.items()}


async def _recount(round_: Round, events: Sequence[UUID]) -> None:
    """Compares what is counted of events with their rows (storage/counting.py)."""
    try:
        wrong = await round_.store.postgres.call(queries.miscounted, events, mend=round_.mend)
    except TooSlow:
        round_.skipped("miscounted", len(events))
        return
    for event, count in wrong.items():
        round_.found("miscounted", str(event), count=count, repaired=round_.mend)
