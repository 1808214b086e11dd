"""Replays of deliveries: a dead letter gets another attempt, with its identity and its history kept (R4, design §5.10).

The row is locked and looked at, put into motion in Redis, and only then told its new fact and committed. So of two
replays at once the second finds nothing to do, and nobody else takes for missing what is about to be there. Run by
Postgres.call; `restore` does the part in Redis.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final
from uuid import UUID

from psycopg2.extras import execute_values

from tocsin.domain.delivery import Channel, Fact, Reason, Status, key, parse_key
from tocsin.domain.event import Event
from tocsin.domain.plan import Priority
from tocsin.domain.preferences import allows
from tocsin.storage import merging
from tocsin.storage.audit import audit
from tocsin.storage.by import By
from tocsin.storage.database import cursor
from tocsin.storage.event_queries import contents
from tocsin.storage.flight_parts import OpenFlight, OpenStep
from tocsin.storage.ledger import refused
from tocsin.storage.transactions import in_transaction

Restore = Callable[[Sequence[OpenFlight], Iterable[Event]], Sequence[str] | None]
"""Puts flights of events into motion; answers for each step as Flights.restore, None where Redis does not answer."""

DEAD: Final = frozenset({Status.FAILED, Status.DEAD})

# In the order in which persisters write, so that none waits for the other in a circle.
_LOCKED: Final = """
select delivery.id, delivery.notification_id, delivery.step, delivery.channel, delivery.user_id, delivery.event_id,
  delivery.status, delivery.history, event.accepted_at is not null as known, event.type, event.mandatory,
  event.priority, event.cancelled_at is not null as cancelled, note.read_at is not null as read,
  keys.event_id <> event.id as replaced,
  coalesce(preferences.opt_outs, '[]') as opt_outs, coalesce(person.active, true) as active,
  (extract(epoch from clock_timestamp()) * 1000)::bigint as now_ms
from deliveries delivery
left join notifications note on note.id = delivery.notification_id
left join events event on event.id = delivery.event_id
left join event_keys keys on keys.key = event.event_key
left join preferences on preferences.user_id = delivery.user_id
left join users person on person.id = delivery.user_id
where delivery.id = any(%s::uuid[])
order by delivery.notification_id, delivery.step
for update of delivery
"""


@dataclass(slots=True)
class Replayed:
    """What became of dead letters that were to be replayed."""

    replayed: list[UUID] = field(default_factory=list)
    waiting: int = 0
    """How many of them wait for Redis, which does not answer; reconciliation puts them into motion."""
    refused: dict[str, int] = field(default_factory=dict)
    """Those that are not to be sent any more, by reason."""
    skipped: int = 0
    """Those that are no dead letters, or are not known."""
    busy: int = 0
    """Events of which something is still in motion, and what Postgres refused to store something of (`bad_facts`); to
    be replayed later."""

    def refuse(self, reason: str) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def add(self, other: "Replayed") -> None:
        self.replayed += other.replayed
        self.waiting += other.waiting
        self.skipped += other.skipped
        self.busy += other.busy
        for reason, count in other.refused.items():
            self.refused[reason] = self.refused.get(reason, 0) + count


@dataclass(frozen=True, slots=True)
class _Row:
    """A locked delivery and what decides whether it may be sent."""

    id: UUID
    notification_id: UUID
    step: int
    channel: str
    user_id: str | None
    event_id: UUID | None
    status: str
    history: dict[str, Fact]
    known: bool
    type: str | None
    mandatory: bool | None
    priority: str | None
    cancelled: bool
    read: bool
    replaced: bool | None
    opt_outs: list[str]
    active: bool
    now_ms: int

    @property
    def next_attempt(self) -> int:
        """Numbers go on after the greatest that was ever told of, be it the one shown or not."""
        return 1 + max(parse_key(place)[0] for place in self.history)

    def hindrance(self) -> Reason | None:
        """Why it is not to be sent any more."""
        if not self.known or self.user_id is None:
            return Reason.MISSING
        if self.cancelled:
            return Reason.CANCELLED
        if self.replaced:
            # What it says is no longer so.
            return Reason.REPLACED
        if self.read:
            return Reason.READ
        if not self.active:
            return Reason.INACTIVE
        channel, mandatory = Channel(self.channel), bool(self.mandatory)
        return None if allows(self.opt_outs, channel, self.type or "", mandatory=mandatory) else Reason.OPTED_OUT


def replay_deliveries(wanted: Sequence[UUID], by: By, restore: Restore) -> Replayed:
    """Gives the dead letters among `wanted` (at most 100) another attempt that is due now."""
    return in_transaction(lambda: _replay(wanted, by, restore))


def _replay(wanted: Sequence[UUID], by: By, restore: Restore) -> Replayed:
    done = Replayed()
    with cursor() as query:
        query.execute(_LOCKED, (list(map(str, wanted)),))
        dead = [row for row in (_Row(*each) for each in query.fetchall()) if row.status in DEAD]
        done.skipped = len(set(wanted)) - len(dead)
        rows = list(_allowed(dead, done))
        moving = list(_put_in_motion(rows, restore, done))
        if moving:
            facts = [(str(row.id), json.dumps(_fact(row, by))) for row in moving]
            execute_values(query, merging.FACTS_OF_DELIVERIES, facts, template=merging.FACT_VALUES)
            query.execute("delete from discards where id = any(%s::uuid[])", ([str(row.id) for row in moving],))
            audit("dead_letters.replayed", by.actor, by.cid, {"deliveries": [str(row.id) for row in moving]})
    done.replayed = [row.id for row in moving]
    return done


def _allowed(rows: Sequence[_Row], done: Replayed) -> Iterable[_Row]:
    doubted = refused(str(row.notification_id) for row in rows)
    for row in rows:
        if str(row.notification_id) in doubted:
            # What Postgres refused to store may be that it went out.
            done.busy += 1
            continue
        reason = row.hindrance()
        if reason is None:
            yield row
        else:
            done.refuse(reason)


def _put_in_motion(rows: Sequence[_Row], restore: Restore, done: Replayed) -> Iterable[_Row]:
    """The rows that are in motion now, or will be when Redis is back."""
    if not rows:
        return
    flights = [_flight(list(steps)) for _, steps in groupby(rows, lambda row: row.notification_id)]
    answers = restore(flights, contents(list({flight.event for flight in flights})).values())
    for row, answer in zip(rows, answers or ["late"] * len(rows), strict=True):
        if answer == "cancelled":
            # Redis knows of a read or a withdrawal that Postgres does not have yet, and has told so.
            done.refuse(Reason.CANCELLED)
            continue
        done.waiting += answer == "late"
        yield row


def _flight(rows: Sequence[_Row]) -> OpenFlight:
    first = rows[0]
    assert first.event_id is not None  # noqa: S101  # its event is known
    assert first.user_id is not None  # noqa: S101
    steps = [OpenStep(row.step, Channel(row.channel), Status.RETRYING, row.next_attempt, row.now_ms) for row in rows]
    critical = first.priority == Priority.CRITICAL
    return OpenFlight(first.notification_id, first.user_id, first.event_id, critical, 0, steps)


def _fact(row: _Row, by: By) -> dict[str, Any]:
    told = {"at": row.now_ms, "reason": Reason.REPLAYED, "due": row.now_ms, "by": by.actor, "cid": by.cid}
    if allowed := min((fact["attempts"] for fact in row.history.values() if "attempts" in fact), default=0):
        # Up to the next multiple (domain/retry.py `allows`).
        told["attempts"] = -(-row.next_attempt // allowed) * allowed
    return {key(row.next_attempt, Status.RETRYING): told}
