"""What was asked to be stopped, how far it is, and what is still to be stopped of it, page by page (S7). Run by
Postgres.call.

A page is read by the ids that open deliveries and unfinished events have; both are few among many, each with an index
of its own, so nothing is ever gathered in memory and a page costs the same however much there is.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from tocsin.storage.database import cursor
from tocsin.storage.id_ranges import first_of, of_event
from tocsin.storage.moments import ms_of

RUNNING: Final = "RUNNING"
DONE: Final = "DONE"

_LAST: Final = str(UUID(int=(1 << 128) - 1))
_COLUMNS: Final = "id, at, by, cid, reason, wanted, status, place, events, deliveries, ended_at"
_OPEN: Final = "status in ('SCHEDULED', 'QUEUED', 'RETRYING', 'SENDING')"
_UNFINISHED: Final = "status in ('PENDING', 'PROCESSING')"
# One row of `cancellations` that nobody has, for the time given.
_TAKE: Final = f"""
update cancellations set held_until = now() + %s * interval '1 ms' where id = (
  select id from cancellations where status = '{RUNNING}' and (held_until is null or held_until < now())
  order by at limit 1 for update skip locked
) returning {_COLUMNS}
"""  # noqa: S608  # made of constants

_LIVE_EVENTS: Final = f"""
select event.id from events event
where {_UNFINISHED} and event.cancelled_at is null and event.id > %(after)s::uuid and event.id <= %(last)s::uuid
  and event.id >= %(first)s::uuid and (%(type)s::text is null or event.type = %(type)s)
order by event.id limit %(limit)s
"""  # noqa: S608  # made of constants

# From one open delivery to the first of another millisecond, however many lie between: (id, the event's milliseconds).
_STANDING: Final = f"""
with recursive standing (id) as (
  (select id from deliveries where {_OPEN} and id > %(after)s::uuid and id >= %(first)s::uuid order by id limit 1)
  union all
  select (select id from deliveries where {_OPEN} and id > tocsin_last_id(standing.id) order by id limit 1)
  from standing where standing.id <= %(last)s::uuid
)
select id from standing where id <= %(last)s::uuid limit %(limit)s
"""  # noqa: S608  # made of constants
_EVENTS_OF: Final = f"""
select event.id from unnest(%(standing)s::uuid[]) as standing (id)
cross join lateral (
  select id from events
  where id >= tocsin_first_id(standing.id) and id <= tocsin_last_id(standing.id)
    and cancelled_at is null and (%(type)s::text is null or type = %(type)s)
  order by id limit 1000
) as event
where (
  select true from deliveries delivery
  where delivery.id >= tocsin_first_id(event.id) and delivery.id <= tocsin_last_id(event.id)
    and delivery.event_id = event.id and delivery.{_OPEN} limit 1
)
"""  # noqa: S608  # made of constants

_ROWS: Final = f"""
select delivery.id, delivery.notification_id, delivery.event_id from deliveries delivery
where delivery.{_OPEN} and delivery.id > %(after)s::uuid and delivery.id >= %(first)s::uuid
  and delivery.id <= %(last)s::uuid and (%(user)s::text is null or delivery.user_id = %(user)s)
order by delivery.id limit %(limit)s
"""  # noqa: S608  # made of constants
_CHOSEN: Final = """
select id from events where id = any(%(events)s::uuid[]) and (%(type)s::text is null or type = %(type)s)
  and (%(alone)s or cancelled_at is not null)
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be stopped: these events, or all that fit. With a `user`, nothing but that person's notifications of
    them. Times in ms are those at which events began, `to_ms` the first that is too late."""

    events: tuple[UUID, ...] = ()
    type: str | None = None
    user: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None

    def as_json(self) -> dict[str, Any]:
        """As the table holds it."""
        events = [str(event) for event in self.events]
        return {"events": events, "type": self.type, "user": self.user, "from": self.from_ms, "to": self.to_ms}

    @property
    def range(self) -> tuple[str, str]:
        """The least and the greatest id that fits."""
        first = str(first_of(self.from_ms or 0))
        return first, _LAST if self.to_ms is None else str(UUID(int=max(0, first_of(self.to_ms).int - 1)))


@dataclass(slots=True)
class Cancellation:
    """One thing that was asked; times in ms. `deliveries` are those that were waiting and will not be made."""

    id: UUID
    at_ms: int
    by: str
    cid: str
    reason: str
    wanted: Wanted
    status: str = RUNNING
    place: str = ""
    events: int = 0
    deliveries: int = 0
    ended_ms: int | None = None

    def as_fact(self) -> dict[str, Any]:
        """The fact that it is asked, with what is asked in full."""
        told = {name: getattr(self, name) for name in ("by", "cid", "reason", "place", "events")}
        return {"f": "stopping", "id": str(self.id), "at": self.at_ms, "wanted": self.wanted.as_json(), **told}


@dataclass(frozen=True, slots=True)
class Page:
    """Notifications that have something open, by event; `after` is the last delivery looked at, None at the end."""

    notifications: dict[UUID, list[UUID]] = field(default_factory=dict)
    after: str | None = None


def of_fact(fact: Mapping[str, Any]) -> Cancellation:
    """What `as_fact` told."""
    told = {name: fact[name] for name in ("by", "cid", "reason", "place", "events")}
    return Cancellation(id=UUID(fact["id"]), at_ms=int(fact["at"]), wanted=_wanted(fact["wanted"]), **told)


def begin(cancellation: Cancellation, held_ms: int) -> None:
    """Keeps a cancellation, unless it is kept; its maker has it for `held_ms`."""
    with cursor() as query:
        query.execute(
            "insert into cancellations (id, at, by, cid, reason, wanted, place, events, held_until) values"
            " (%s, tocsin_time(%s), %s, %s, %s, %s, %s, %s, now() + %s * interval '1 ms') on conflict do nothing",
            (
                *(str(cancellation.id), cancellation.at_ms, cancellation.by, cancellation.cid, cancellation.reason),
                *(json.dumps(cancellation.wanted.as_json()), cancellation.place, cancellation.events, held_ms),
            ),
        )


def take(held_ms: int) -> Cancellation | None:
    """The oldest that runs and that nobody has, to have it for `held_ms`."""
    with cursor() as query:
        query.execute(_TAKE, (held_ms,))
        found = query.fetchone()
    return _cancellation(found) if found else None


def keep(cancellation: Cancellation, held_ms: int) -> None:
    """Keeps how far a cancellation is. With `held_ms` of 0 it is let go."""
    with cursor() as query:
        query.execute(
            "update cancellations set status = %s, place = %s, events = %s, deliveries = %s,"
            " ended_at = tocsin_time(%s), held_until = case when %s > 0 then now() + %s * interval '1 ms' end"
            " where id = %s",
            (
                *(cancellation.status, cancellation.place, cancellation.events, cancellation.deliveries),
                *(cancellation.ended_ms, held_ms, held_ms, str(cancellation.id)),
            ),
        )


def forget_old(days: int, limit: int) -> None:
    """Removes up to `limit` cancellations that were done so long ago."""
    with cursor() as query:
        query.execute(
            "delete from cancellations where id in (select id from cancellations"
            " where ended_at < now() - %s * interval '1 day' order by at limit %s)",
            (days, limit),
        )


def filters() -> list[Cancellation]:
    """Those that run and have a filter, each of which holds in Redis."""
    with cursor() as query:
        query.execute(f"select {_COLUMNS} from cancellations where status = '{RUNNING}' order by at")  # noqa: S608
        found = [_cancellation(row) for row in query.fetchall()]
    return [each for each in found if not each.wanted.events]


def ended(identifiers: Sequence[UUID]) -> list[UUID]:
    """Those that are done."""
    with cursor() as query:
        query.execute(
            f"select id from cancellations where id = any(%s::uuid[]) and status = '{DONE}'",  # noqa: S608
            (list(map(str, identifiers)),),
        )
        return [identifier for (identifier,) in query.fetchall()]


def cancellation(identifier: UUID) -> Cancellation | None:
    """One cancellation."""
    with cursor() as query:
        query.execute(f"select {_COLUMNS} from cancellations where id = %s", (str(identifier),))  # noqa: S608
        found = query.fetchone()
    return _cancellation(found) if found else None


def cancellations(limit: int, before: tuple[int, UUID] | None = None) -> list[Cancellation]:
    """Up to `limit` cancellations, the newest first, those before one asked for at (ms, id)."""
    where, values = "", []
    if before is not None:
        where, values = "where (at, id) < (tocsin_time(%s), %s::uuid)", [before[0], str(before[1])]
    with cursor() as query:
        query.execute(
            f"select {_COLUMNS} from cancellations {where} order by at desc, id desc limit %s",  # noqa: S608
            (*values, limit),
        )
        return [_cancellation(row) for row in query.fetchall()]


def unfinished(wanted: Wanted, after: str, limit: int) -> list[UUID]:
    """Events that fit, are not withdrawn and not fully fanned out: up to `limit` after the id `after`."""
    first, last = wanted.range
    with cursor() as query:
        query.execute(_LIVE_EVENTS, {"after": after, "first": first, "last": last, "type": wanted.type, "limit": limit})
        return [event for (event,) in query.fetchall()]


def waiting_events(wanted: Wanted, after: str, limit: int) -> tuple[list[UUID], str | None]:
    """Events that fit, are not withdrawn and have something waiting, of up to `limit` milliseconds after the id
    `after`; and after which id to go on, None at the end."""
    first, last = wanted.range
    with cursor() as query:
        query.execute(_STANDING, {"after": after, "first": first, "last": last, "limit": limit})
        standing = [str(found) for (found,) in query.fetchall()]
        query.execute(_EVENTS_OF, {"standing": standing, "type": wanted.type})
        events = [event for (event,) in query.fetchall()]
        if len(standing) < limit:
            return events, None
        query.execute("select tocsin_last_id(%s::uuid)::text", (standing[-1],))
        return events, query.fetchone()[0]


def waiting(wanted: Wanted, after: str, limit: int, event: UUID | None = None) -> Page:
    """What waits of events that fit and are withdrawn, or of `event`, or for the user asked for: up to `limit` open
    deliveries after the id `after` are looked at."""
    first, last = wanted.range
    if event is not None:
        first, last = (str(each) for each in of_event(event))
    with cursor() as query:
        query.execute(_ROWS, {"after": after, "first": first, "last": last, "user": wanted.user, "limit": limit})
        rows = query.fetchall()
        found: dict[UUID, dict[UUID, None]] = {}
        for _, note, of in rows:
            if of is not None and event in {None, of}:
                found.setdefault(of, {})[note] = None
        if event is None:
            query.execute(_CHOSEN, {"events": list(found), "type": wanted.type, "alone": wanted.user is not None})
            chosen = {each for (each,) in query.fetchall()}
            found = {each: notes for each, notes in found.items() if each in chosen}
    notifications = {each: list(notes) for each, notes in found.items()}
    return Page(notifications, str(rows[-1][0]) if len(rows) == limit else None)


def _cancellation(row: Sequence[Any]) -> Cancellation:
    identifier, at, by, cid, reason, wanted, status, place, events, deliveries, ended = row
    return Cancellation(
        id=UUID(str(identifier)),
        at_ms=ms_of(at) or 0,
        by=by,
        cid=cid,
        reason=reason,
        wanted=_wanted(wanted),
        status=status,
        place=place,
        events=events,
        deliveries=deliveries,
        ended_ms=ms_of(ended),
    )


def _wanted(told: Mapping[str, Any]) -> Wanted:
    """As `as_json` has it."""
    return Wanted(tuple(map(UUID, told["events"])), told["type"], told["user"], told["from"], told["to"])
