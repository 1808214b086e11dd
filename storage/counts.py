"""What became of events, by their counts: read without looking at their rows, summed up by a job, and compared with the
rows now and then (design §5.6, F4, T8). Run by Postgres.call."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from tocsin.domain.delivery import OPEN, Status
from tocsin.storage.counting import INTO, LISTED, MADE, NOTIFICATIONS, READ
from tocsin.storage.database import cursor
from tocsin.storage.transactions import in_transaction

# In one statement, for a difference may be summed up at any moment.
_COUNTED: Final = """
select event_id, channel, status, reason, sum(count)::bigint as count from (
  select event_id, channel, status, reason, count from event_counts where event_id = any(%(events)s::uuid[])
  union all
  select event_id, channel, status, reason, difference from count_changes where event_id = any(%(events)s::uuid[])
) as told
group by event_id, channel, status, reason having sum(count) <> 0
"""

# Whoever finds it taken has nothing to do. Differences lie where they were written until they go.
_MINE: Final = "select pg_try_advisory_xact_lock(hashtextextended('tocsin counts', 0))"
_SUM_UP: Final = """
with taken as (
  delete from count_changes where ctid = any(array(select ctid from count_changes limit %s))
  returning event_id, channel, status, reason, difference
), summed as (
  insert into event_counts as known (event_id, channel, status, reason, count)
  select event_id, channel, status, reason, sum(difference) from taken
  group by event_id, channel, status, reason having sum(difference) <> 0
  on conflict (event_id, channel, status, reason) do update set count = known.count + excluded.count
  returning event_id, count
)
select (select count(*) from taken), array(select distinct event_id::text from summed where count = 0)
"""
_FORGET_ZEROS: Final = "delete from event_counts where event_id = any(%s::uuid[]) and count = 0"

# One statement sees rows and counts as they were at one moment, and each change with its difference or neither.
# An event's rows lie in one range of ids; each range is looked at by itself.
_ROWS: Final = """
select wanted.id as event_id, '' as channel, told.status, '' as reason, told.count
from unnest(%(events)s::uuid[]) as wanted (id)
cross join lateral (
  select count(*) as made, count(listed_at) as listed, count(read_at) as read from notifications note
  where note.id >= tocsin_first_id(wanted.id) and note.id <= tocsin_last_id(wanted.id) and note.event_id = wanted.id
) as notes
cross join lateral (values ('MADE', made), ('LISTED', listed), ('READ', read)) as told (status, count)
where told.count > 0
union all
select wanted.id, standing.channel, standing.status, standing.reason, standing.count
from unnest(%(events)s::uuid[]) as wanted (id)
cross join lateral (
  select channel, status, coalesce(reason, '') as reason, count(*) as count from deliveries delivery
  where delivery.id >= tocsin_first_id(wanted.id) and delivery.id <= tocsin_last_id(wanted.id)
    and delivery.event_id = wanted.id
  group by channel, status, coalesce(reason, '')
) as standing
"""
_WRONG: Final = f"""
with counted as ({_COUNTED}), standing as ({_ROWS})
select coalesce(standing.event_id, counted.event_id) as event_id, channel, status, reason,
  coalesce(standing.count, 0) - coalesce(counted.count, 0) as difference
from counted full join standing using (event_id, channel, status, reason)
where standing.count is distinct from counted.count
"""  # noqa: S608  # made of constants
_MEND: Final = f"with wrong as ({_WRONG}) {INTO} select * from wrong returning event_id"  # noqa: S608


@dataclass(slots=True)
class EventCounts:
    """What became of an event, as stored now."""

    notifications: int = 0
    listed: int = 0
    read: int = 0
    deliveries: dict[str, int] = field(default_factory=dict)
    """Deliveries by status."""
    by_channel: dict[str, dict[str, int]] = field(default_factory=dict)
    """Deliveries by channel and status."""
    suppressed: dict[str, int] = field(default_factory=dict)
    """Deliveries that were not to be made, by reason."""

    def of(self, statuses: Iterable[str]) -> int:
        """How many deliveries stand so."""
        return sum(self.deliveries.get(status, 0) for status in statuses)

    @property
    def waiting(self) -> int:
        """Deliveries that may still go out."""
        return self.of(OPEN)


def counts_of(events: Sequence[UUID]) -> dict[UUID, EventCounts]:
    """What became of events."""
    counts = {event: EventCounts() for event in events}
    with cursor() as query:
        query.execute(_COUNTED, {"events": list(events)})
        for event, channel, status, reason, count in query.fetchall():
            _add(counts[event], channel, status, reason, count)
    return counts


def sum_up(most: int) -> int:
    """Adds up to `most` differences to the sums; answers how many those were, none while another process is at it."""
    return in_transaction(lambda: _sum_up(most))


def _sum_up(most: int) -> int:
    with cursor() as query:
        query.execute(_MINE)
        if not query.fetchone()[0]:
            return 0
        query.execute(_SUM_UP, (most,))
        taken, emptied = query.fetchone()
        if emptied:
            query.execute(_FORGET_ZEROS, (emptied,))
        return int(taken)


def miscounted(events: Sequence[UUID], *, mend: bool) -> dict[UUID, int]:
    """Compares the counts of events with their rows: how many rows were counted wrongly, by event. They never are,
    unless a program that knows no counts, or a person, has changed rows. With `mend` they are right from now on."""
    return in_transaction(lambda: _miscounted(events, mend=mend))


def _miscounted(events: Sequence[UUID], *, mend: bool) -> dict[UUID, int]:
    found: dict[UUID, int] = {}
    with cursor() as query:
        # Two that mend the same would mend it twice.
        query.execute("select pg_advisory_xact_lock(hashtextextended('tocsin miscounted', 0))")
        statement = f"{_MEND}, difference" if mend else f"select event_id, difference from ({_WRONG}) as wrong"  # noqa: S608
        query.execute(statement, {"events": list(events)})
        for event, difference in query.fetchall():
            found[event] = found.get(event, 0) + abs(difference)
    return found


def _add(counts: EventCounts, channel: str, status: str, reason: str, count: int) -> None:
    if channel == NOTIFICATIONS:
        _add_notifications(counts, status, count)
        return
    by_status = counts.by_channel.setdefault(channel, {})
    by_status[status] = by_status.get(status, 0) + count
    counts.deliveries[status] = counts.deliveries.get(status, 0) + count
    if status == Status.SUPPRESSED and reason:
        counts.suppressed[reason] = counts.suppressed.get(reason, 0) + count


def _add_notifications(counts: EventCounts, what: str, count: int) -> None:
    if what == MADE:
        counts.notifications = count
    elif what == LISTED:
        counts.listed = count
    elif what == READ:
        counts.read = count
