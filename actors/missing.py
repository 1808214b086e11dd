"""Reconciliation, from Postgres to Redis: what Postgres has open and nothing has in motion is put back (R6).

Looks at Postgres for what to look for, then in Redis, and where something is not there waits until Postgres has heard
of all that Redis did until then. What is still open then, with its row locked, is lost, and not merely late.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final
from uuid import UUID

from tocsin.actors.outcomes import send_rules
from tocsin.actors.rounds import Round
from tocsin.domain.delivery import Channel, Status
from tocsin.domain.event import Event
from tocsin.storage import ledger, queries
from tocsin.storage.bridge import from_thread
from tocsin.storage.flight_parts import OpenFlight
from tocsin.storage.ledger import LockedDelivery, OpenDelivery
from tocsin.storage.motion import Wrong
from tocsin.storage.scripts import MOST_ITEMS
from tocsin.storage.transactions import LOCKED_MS, in_transaction

Restore = Callable[[Sequence[OpenFlight], Iterable[Event]], list[str]]
"""Puts flights of events into motion, from a thread."""

_PAGE: Final = 1_000
"""What one statement reads; Redis is asked about a hundred at a time."""
_CURSOR: Final = "open"
_MOST_LOST: Final = 5_000
"""How many one run puts back; the next goes on."""
_SHARE: Final = 0.5


async def find_missing(round_: Round) -> None:
    """Walks the open deliveries from where the last run stopped."""
    lost: list[OpenDelivery] = []
    after: str | None = round_.place.cursors.pop(_CURSOR, None)
    began_at = after
    while True:
        page = await round_.store.postgres.call(ledger.open_page, after, _PAGE)
        round_.ledger += len(page)
        for first in range(0, len(page), MOST_ITEMS):
            lost += await _look(round_, page[first : first + MOST_ITEMS])
        after = page[-1].id if len(page) == _PAGE else None
        if after is None and began_at is None:
            break
        if after is None:
            # What lay before the place where this run began is for the next one.
            round_.whole = False
            break
        if len(lost) >= _MOST_LOST or round_.is_over(_SHARE):
            round_.place.cursors[_CURSOR] = after
            round_.whole = False
            break
    if lost:
        await _judge(round_, lost)


async def _look(round_: Round, page: Sequence[OpenDelivery]) -> list[OpenDelivery]:
    """The deliveries of a page that have no flight. What the index lacks is counted, and mended by the look itself."""
    steps: dict[str, list[int]] = defaultdict(list)
    for delivery in page:
        steps[delivery.notification].append(delivery.step)
    wrong = await round_.store.motion.look(steps, mend=round_.mend)
    events = {delivery.notification: delivery.event for delivery in page}
    missing = {(each.notification, each.step) for each in wrong if each.what == "missing"}
    if round_.mend:
        await _end_leases(round_, [each for each in wrong if each.what == "ended"])
    for each in wrong:
        if each.what == "unindexed":
            round_.found_unindexed(each, events[each.notification])
    return [delivery for delivery in page if (delivery.notification, delivery.step) in missing]


async def _end_leases(round_: Round, ended: Sequence[Wrong]) -> None:
    """What a killed process left is ended by whoever claims it; while its provider rests nobody does."""
    by_channel: dict[str, list[tuple[UUID, int]]] = defaultdict(list)
    for each in ended:
        by_channel[each.channel].append((UUID(each.notification), each.step))
    for name, steps in by_channel.items():
        channel = Channel(name)
        rules = send_rules(round_.store.settings, channel)
        await round_.store.attempts.end_leases(
            channel, steps, attempts=rules.retry.attempts, resend=rules.resend_unknown
        )


async def _judge(round_: Round, lost: Sequence[OpenDelivery]) -> None:
    if not await round_.caught_up():
        round_.skipped("missing", len(lost))
        return
    for first in range(0, len(lost), MOST_ITEMS):
        some = {delivery.id: delivery.version for delivery in lost[first : first + MOST_ITEMS]}
        if round_.mend:
            for event in await round_.store.postgres.call(ledger.cancelled_events, list(some)):
                # Redis may have forgotten it: what is put back is then cancelled at once.
                await round_.store.flights.withdraw(event)
        restore = await _restoring(round_) if round_.mend else None
        lease_ms = round_.store.settings.actors.lease
        for each in await round_.store.postgres.call(put_back, some, lease_ms, restore):
            _count(round_, each)


async def _restoring(round_: Round) -> Restore:
    """Flights.restore for a thread that holds rows locked; one that was frozen for longer than it holds them does
    nothing any more."""
    flights = round_.store.flights
    return from_thread(partial(flights.restore_whole, until_ms=await flights.now_ms() + LOCKED_MS))


@dataclass(frozen=True, slots=True)
class Judged:
    """A delivery without a flight. `answer` is that of Flights.restore, or "open" where nothing was put back; "doubted"
    where Postgres refused to store something of it, or where its row has changed since it was looked for: then nobody
    looked in Redis after that."""

    row: LockedDelivery
    answer: str


def put_back(deliveries: Mapping[str, str], lease_ms: int, restore: Restore | None) -> list[Judged]:
    """Puts those of `deliveries` (at most 100, with their rows' versions) into motion that are open, while their rows
    are locked; without `restore` only says which they are. Run by Postgres.call."""
    return in_transaction(lambda: _put_back(deliveries, lease_ms, restore))


def _put_back(deliveries: Mapping[str, str], lease_ms: int, restore: Restore | None) -> list[Judged]:
    rows = [row for row in ledger.locked(list(deliveries), lease_ms=lease_ms) if row.is_open]
    changed = {row.id for row in rows if row.version != deliveries[row.id]}
    doubted = ledger.refused([str(row.notification) for row in rows])
    good = [row for row in rows if row.is_sendable and str(row.notification) not in doubted and row.id not in changed]
    answers = ["open"] * len(good)
    if restore and good:
        events = queries.contents([row.event for row in good if row.event])
        answers = restore(ledger.flights_of(good), events.values())
    rest = [Judged(row, "doubted") for row in rows if row not in good]
    return [Judged(row, answer) for row, answer in zip(good, answers, strict=True)] + rest


def _count(round_: Round, judged: Judged) -> None:
    row = judged.row
    if judged.answer == "doubted":
        round_.skipped("missing", 1)
    elif judged.answer != "there":
        # What is there came into motion again meanwhile.
        late_ms = row.now_ms - row.time_ms
        stuck = row.status is Status.SENDING and late_ms > round_.settings.margin
        repaired = judged.answer in {"restored", "cancelled"}
        round_.found("stuck" if stuck else "missing", str(row.event), repaired=repaired)
