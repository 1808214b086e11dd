"""What Postgres says is open, for those who compare it with Redis. Run by Postgres.call.

`locked` is the second look: rows are locked in the order in which persisters write, so that a replay or a fact waits
until what was found has been acted upon.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final
from uuid import UUID

from tocsin.domain.delivery import OPEN, Channel, Status, shown_attempt
from tocsin.domain.plan import Priority
from tocsin.storage.database import cursor, database
from tocsin.storage.flight_parts import OpenFlight, OpenStep
from tocsin.storage.moments import ms_of

_FIRST: Final = UUID(int=0)

# The condition is that of the index deliveries_open, word for word. The order is that of the column: `id` alone would
# be the text beside it, for which all of them would be sorted.
_PAGE: Final = """
select id::text, notification_id::text, event_id::text, step, status, xmin::text from deliveries
where status in ('SCHEDULED', 'QUEUED', 'RETRYING', 'SENDING') and id > %s::uuid order by deliveries.id limit %s
"""

_LOCKED: Final = """
select delivery.id::text, delivery.notification_id, delivery.event_id, note.user_id, delivery.step, delivery.channel,
  delivery.status, delivery.history, delivery.scheduled_for, delivery.queued_at, delivery.next_attempt_at,
  delivery.last_attempted_at, note.read_at, event.priority, event.cancelled_at is not null,
  (extract(epoch from clock_timestamp()) * 1000)::bigint, delivery.xmin::text
from deliveries delivery
left join notifications note on note.id = delivery.notification_id
left join events event on event.id = delivery.event_id and event.accepted_at is not null
where delivery.id = any(%s::uuid[])
order by delivery.notification_id, delivery.step
for update of delivery
"""

_STATUSES: Final = "select id::text, status from deliveries where id = any(%s::uuid[])"

_CANCELLED: Final = """
select distinct event.id from deliveries delivery join events event on event.id = delivery.event_id
where delivery.id = any(%s::uuid[]) and event.cancelled_at is not null
"""

_UNWANTED: Final = """
select delivery.id::text, case when event.cancelled_at is not null then 'cancelled' else 'read' end
from deliveries delivery
left join notifications note on note.id = delivery.notification_id
left join events event on event.id = delivery.event_id
where delivery.id = any(%s::uuid[]) and (event.cancelled_at is not null or note.read_at is not null)
"""

# What Postgres refused to store may be what ended a delivery: nobody can say that it is still open.
_REFUSED: Final = """
select wanted from unnest(%s::text[]) as wanted
where exists (select 1 from bad_facts where position(convert_to(wanted, 'UTF8') in facts) > 0)
"""


@dataclass(frozen=True, slots=True)
class OpenDelivery:
    """A delivery that is not final; ids as text, as Redis has them."""

    id: str
    notification: str
    event: str | None
    step: int
    status: str
    version: str
    """Another one once anything of the row has changed."""


@dataclass(frozen=True, slots=True)
class LockedDelivery:
    """A delivery as it stands while its row is locked; times in ms. `event` and `user` are None where nobody told."""

    id: str
    notification: UUID
    event: UUID | None
    user: str | None
    step: int
    channel: Channel
    status: Status
    attempt: int
    time_ms: int
    read_ms: int
    critical: bool
    cancelled: bool
    now_ms: int
    version: str

    @property
    def is_open(self) -> bool:
        return self.status in OPEN

    @property
    def is_sendable(self) -> bool:
        """Whether enough is known of it to put it into motion."""
        return self.is_open and self.event is not None and self.user is not None


def is_open(status: str | None) -> bool:
    """Whether a delivery that stands so is not final; None is one that is not known."""
    return status in OPEN


def open_page(after: str | None, limit: int) -> list[OpenDelivery]:
    """Up to `limit` open deliveries in the order of their ids, those after `after`."""
    with database.atomic(), cursor() as query:
        # Without statistics, such as after a restore, Postgres would read and sort all of them for each page.
        query.execute("set local enable_bitmapscan = off; set local enable_seqscan = off")
        query.execute(_PAGE, (after or str(_FIRST), limit))
        return [OpenDelivery(*row) for row in query.fetchall()]


def statuses(deliveries: Sequence[str]) -> dict[str, str]:
    """Where deliveries stand; those that are not known are left out."""
    with cursor() as query:
        query.execute(_STATUSES, (list(deliveries),))
        return dict(query.fetchall())


def locked(deliveries: Sequence[str], *, lease_ms: int) -> list[LockedDelivery]:
    """Deliveries as they stand, locked until the transaction ends; those that are not known are left out."""
    with cursor() as query:
        query.execute(_LOCKED, (list(deliveries),))
        return [_delivery(row, lease_ms) for row in query.fetchall()]


def cancelled_events(deliveries: Sequence[str]) -> list[UUID]:
    """The events of deliveries that were withdrawn as a whole."""
    with cursor() as query:
        query.execute(_CANCELLED, (list(deliveries),))
        return [UUID(str(event)) for (event,) in query.fetchall()]


def unwanted(deliveries: Sequence[str]) -> dict[str, str]:
    """Of deliveries those that were read or withdrawn, with that for a reason."""
    with cursor() as query:
        query.execute(_UNWANTED, (list(deliveries),))
        return dict(query.fetchall())


def refused(identifiers: Iterable[str]) -> set[str]:
    """Of ids those that facts name which Postgres refused."""
    with cursor() as query:
        query.execute("select exists (select 1 from bad_facts)")
        if not query.fetchone()[0]:
            return set()
        query.execute(_REFUSED, (list(identifiers),))
        return {identifier for (identifier,) in query.fetchall()}


def flights_of(deliveries: Iterable[LockedDelivery]) -> list[OpenFlight]:
    """What is to be in motion of locked deliveries, which are in the order of their notifications."""
    flights = []
    for notification, steps in groupby(deliveries, lambda each: each.notification):
        rows = list(steps)
        first = rows[0]
        assert first.event is not None  # noqa: S101  # only of what `is_sendable`
        assert first.user is not None  # noqa: S101
        opened = [OpenStep(row.step, row.channel, row.status, row.attempt, row.time_ms) for row in rows]
        flights.append(OpenFlight(notification, first.user, first.event, first.critical, first.read_ms, opened))
    return flights


def _delivery(row: Sequence[Any], lease_ms: int) -> LockedDelivery:
    identifier, notification, event, user, step, channel, status, history, *more = row
    *times, read, priority, cancelled, now_ms, version = more
    scheduled, queued, retrying, began = map(ms_of, times)
    time_ms = {
        Status.SCHEDULED: scheduled,
        Status.QUEUED: queued,
        Status.RETRYING: retrying,
        Status.SENDING: None if began is None else began + lease_ms,
    }
    return LockedDelivery(
        id=identifier,
        notification=UUID(str(notification)),
        event=UUID(str(event)) if event and priority else None,
        user=user,
        step=step,
        channel=Channel(channel),
        status=Status(status),
        attempt=shown_attempt(history)[0],
        time_ms=time_ms.get(Status(status)) or now_ms,
        read_ms=ms_of(read) or 0,
        critical=priority == Priority.CRITICAL,
        cancelled=bool(cancelled),
        now_ms=now_ms,
        version=version,
    )
