"""Reconciliation, from Redis to Postgres: what is in motion that Postgres does not know, or has as final, and entries
of the time index that stand for nothing (R6). Only what two runs agree on is taken out, and only as it was seen.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from tocsin.actors.rounds import Round
from tocsin.domain import ids
from tocsin.storage import ledger
from tocsin.storage.bridge import from_thread
from tocsin.storage.flight_parts import SeenFlight, SeenStep
from tocsin.storage.motion import Dropping, step_of
from tocsin.storage.scripts import MOST_ITEMS
from tocsin.storage.transactions import in_transaction

Drop = Callable[[Sequence[Dropping]], list[bool]]
"""Motion.drop, from a thread."""

_MOST_ORPHANS: Final = 5_000
_SHARE: Final = 0.85


@dataclass(frozen=True, slots=True)
class Moving:
    """A step in motion, and the delivery that it is in Postgres."""

    flight: SeenFlight
    step: SeenStep

    @property
    def delivery(self) -> str:
        return ids.delivery_id_text(self.flight.notification, self.step.number, self.step.channel)

    @property
    def suspect(self) -> str:
        return f"step:{self.flight.notification}:{self.step.number}"


async def find_orphans(round_: Round) -> None:
    """Walks the time index, each of its keys from where the last run stopped."""
    orphans: list[Moving] = []
    for index in round_.store.motion.indexes:
        orphans += await _walk(round_, index)
    if orphans:
        await _judge(round_, list({each.suspect: each for each in orphans}.values()))


async def _walk(round_: Round, index: str) -> list[Moving]:
    found: list[Moving] = []
    cursor = int(round_.place.cursors.pop(index, 0))
    round_.whole = round_.whole and cursor == 0
    while True:
        cursor, entries = await round_.store.motion.entries(index, cursor)
        for first in range(0, len(entries), MOST_ITEMS):
            found += await _look(round_, index, entries[first : first + MOST_ITEMS])
        if cursor == 0:
            return found
        if len(found) >= _MOST_ORPHANS or round_.is_over(_SHARE):
            round_.place.cursors[index] = str(cursor)
            round_.whole = False
            return found


async def _look(round_: Round, index: str, entries: Sequence[str]) -> list[Moving]:
    """The steps behind entries that Postgres does not have open as far as it knows."""
    moving, stray = await _behind(round_, index, entries)
    await _drop_strays(round_, index, stray)
    round_.clears(_name(index, entry) for entry in entries if entry not in stray)
    if not moving:
        return []
    named = {each.delivery: each for each in moving}
    stand = await round_.store.postgres.call(ledger.statuses, list(named))
    open_ = {delivery for delivery in named if ledger.is_open(stand.get(delivery))}
    round_.clears(named[delivery].suspect for delivery in open_)
    return [each for delivery, each in named.items() if delivery not in open_]


async def _behind(round_: Round, index: str, entries: Sequence[str]) -> tuple[list[Moving], set[str]]:
    """What entries stand for and nobody holds; and the entries that stand for nothing."""
    motion = round_.store.motion
    if index != motion.indexes[0]:
        steps = {entry: step_of(entry) for entry in entries}
        flights = await motion.flights([step[0] for step in steps.values() if step])
        return _of_channel(steps, flights)
    whole = [entry for entry in entries if not entry.startswith("n:")]
    there = await motion.exist(whole) if whole else []
    stray = {entry for entry, exists in zip(whole, there, strict=True) if not exists}
    notes = [entry.removeprefix("n:") for entry in entries if entry.startswith("n:")]
    flights = await motion.flights(notes) if notes else {}
    stray |= {f"n:{note}" for note in notes if note not in flights}
    return [Moving(flight, step) for flight in flights.values() for step in flight.steps if step.scheduled], stray


def _of_channel(
    steps: dict[str, tuple[str, int] | None], flights: dict[str, SeenFlight]
) -> tuple[list[Moving], set[str]]:
    moving, stray = [], set()
    for entry, named in steps.items():
        flight = flights.get(named[0]) if named else None
        step = next((each for each in flight.steps if named and each.number == named[1]), None) if flight else None
        if flight is None or step is None or step.scheduled:
            stray.add(entry)
        elif step.waits:
            moving.append(Moving(flight, step))
    return moving, stray


def _name(index: str, entry: str) -> str:
    return f"entry:{index}:{entry}"


async def _drop_strays(round_: Round, index: str, stray: Iterable[str]) -> None:
    """Entries without anything behind them. Redis alone tells, so nothing has to be waited for."""
    agreed = []
    for entry in stray:
        if round_.agrees(_name(index, entry)) and round_.mend:
            agreed.append(entry)
        else:
            round_.found("entries", None)
    dropped = await round_.store.motion.drop([Dropping("entry", index, entry) for entry in agreed])
    for entry, gone in zip(agreed, dropped, strict=True):
        if gone:
            round_.found("entries", None, repaired=True)
        round_.clears([_name(index, entry)])


async def _judge(round_: Round, orphans: Sequence[Moving]) -> None:
    if not await round_.caught_up():
        round_.skipped("orphans", len(orphans))
        return
    ordered = sorted(orphans, key=lambda each: each.flight.notification)
    for first in range(0, len(ordered), MOST_ITEMS):
        some = ordered[first : first + MOST_ITEMS]
        agreed = {each.suspect for each in some if round_.agrees(each.suspect)}
        drop = from_thread(round_.store.motion.drop)
        judged = await round_.store.postgres.call(_judged, some, agreed if round_.mend else set(), drop)
        for each in some:
            verdict = judged[each.suspect]
            if verdict in {"open", "changed"}:
                round_.clears([each.suspect])
            elif verdict == "doubted":
                round_.skipped("orphans", 1)
            else:
                round_.found("orphans", each.flight.event, repaired=verdict == "dropped")
                if verdict == "dropped":
                    round_.clears([each.suspect])


def _judged(orphans: Sequence[Moving], droppable: set[str], drop: Drop) -> dict[str, str]:
    """What is to be said of each: "open", "doubted" where Postgres refused to store something of it, "orphan", or
    "dropped". Rows are locked meanwhile, so that no replay puts into motion what is taken out. Run by Postgres.call."""
    return in_transaction(lambda: _dropped(orphans, droppable, drop))


def _dropped(orphans: Sequence[Moving], droppable: set[str], drop: Drop) -> dict[str, str]:
    rows = {row.id: row for row in ledger.locked([each.delivery for each in orphans], lease_ms=0)}
    doubted = ledger.refused(each.flight.notification for each in orphans)
    verdicts: dict[str, str] = {}
    for each in orphans:
        row = rows.get(each.delivery)
        doubtful = each.flight.notification in doubted
        verdicts[each.suspect] = "open" if row and row.is_open else "doubted" if doubtful else "orphan"
    leaving = [each for each in orphans if verdicts[each.suspect] == "orphan" and each.suspect in droppable]
    together = [list(steps) for _, steps in groupby(leaving, lambda each: each.flight.text)]
    gone = drop([_dropping(steps) for steps in together]) if together else []
    for steps, done in zip(together, gone, strict=True):
        verdicts |= {each.suspect: "dropped" if done else "changed" for each in steps}
    return verdicts


def _dropping(steps: Sequence[Moving]) -> Dropping:
    flight = steps[0].flight
    return Dropping("flight", flight.notification, flight.text, ",".join(str(each.step.number) for each in steps))
