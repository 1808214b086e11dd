"""Reconciliation of events: those that stand still (I2), and keys of them that nothing would remove (R6). What is to be
said of those that are complete is in short.py."""

from collections.abc import Sequence
from typing import Final

from tocsin.actors.reentering import reenter
from tocsin.actors.rounds import Round
from tocsin.domain.event import Event
from tocsin.storage import queries
from tocsin.storage.scripts import MOST_ITEMS

_YOUNG_MS: Final = 10_000
"""How old an accepted event is before it is looked at: younger ones are being entered."""
_MOST_EVENTS: Final = 1_000
_MOST_SCANS: Final = 100
_MOST_FLIGHTS: Final = 5_000
"""How many flights one run looks for that the index may not know; the walks from Postgres and along the index meet all
others."""
_CURSOR: Final = "keys"
_OF_EVENTS: Final = frozenset({"event", "chunk", "recipients"})


async def find_stalled(round_: Round) -> None:
    """Looks at the events whose fan-out Postgres does not have as finished; there are few."""
    after: Event | None = None
    for _ in range(_MOST_EVENTS // MOST_ITEMS):
        page = await round_.store.postgres.call(queries.unfinished_events, _YOUNG_MS, MOST_ITEMS, after)
        if not page:
            return
        await _look([event for event, _ in page], round_)
        after = page[-1][0]
        if len(page) < MOST_ITEMS:
            return
    round_.whole = False


async def _look(events: Sequence[Event], round_: Round) -> None:
    names = [("event", str(event.id), False) for event in events]
    said = await round_.store.motion.tidy(names, mend=round_.mend)
    gone: list[Event] = []
    for event, answer in zip(events, said, strict=True):
        if answer == "stalled":
            round_.found("events", str(event.id), repaired=round_.mend)
        elif answer in {"absent", "lost"}:
            gone.append(event)
    if gone:
        await _judge(gone, round_)


async def _judge(events: Sequence[Event], round_: Round) -> None:
    """Events that Redis does not have: finished meanwhile, or lost."""
    if not await round_.caught_up():
        round_.skipped("events", len(events))
        return
    still = await round_.store.postgres.call(queries.still_unfinished, [event.id for event in events])
    for event in events:
        if event.id in still:
            # An event that never began has no notification yet, so that it is whole again with all its people.
            entered = await reenter(round_.store, event.id, exact=True) if round_.mend else 0
            round_.found("events", str(event.id), repaired=entered > 0)


async def find_leftovers(round_: Round) -> None:
    """Walks the keys themselves, some at each run: flights that neither the index nor Postgres knows, and what is left
    of events."""
    cursor, looked_at = int(round_.place.cursors.pop(_CURSOR, 0)), 0
    for _ in range(_MOST_SCANS):
        cursor, names = await round_.store.motion.scan(cursor)
        await _tidy(round_, [name for name in names if name[0] in _OF_EVENTS])
        for kind, rest in names:
            if kind == "flight":
                looked_at += await _look_into(round_, rest)
        if cursor == 0:
            return
        if looked_at >= _MOST_FLIGHTS or round_.is_over():
            break
    round_.place.cursors[_CURSOR] = str(cursor)


async def _tidy(round_: Round, names: Sequence[tuple[str, str]]) -> None:
    for first in range(0, len(names), MOST_ITEMS):
        some = names[first : first + MOST_ITEMS]
        asked = [(kind, rest, f"key:{kind}:{rest}" in round_.place.suspects) for kind, rest in some]
        said = await round_.store.motion.tidy(asked, mend=round_.mend)
        for (kind, rest), answer in zip(some, said, strict=True):
            suspect, event = f"key:{kind}:{rest}", rest.partition(":")[0]
            if answer == "stalled":
                round_.found("events", event, repaired=round_.mend)
            if answer in {"left", "removed"}:
                round_.found("leftovers", event, repaired=answer == "removed")
            if answer == "left":
                round_.agrees(suspect)
            else:
                round_.clears([suspect])


async def _look_into(round_: Round, bucket: str) -> int:
    """Flights that the index does not know are entered again; what Postgres does not know of them goes from there.
    Answers how many flights lie in the bucket."""
    notes = await round_.store.motion.in_bucket(bucket)
    for first in range(0, len(notes), MOST_ITEMS):
        wanted: dict[str, list[int]] = {note: [] for note in notes[first : first + MOST_ITEMS]}
        for each in await round_.store.motion.look(wanted, mend=round_.mend):
            round_.found_unindexed(each, None)
    return len(notes)
