# ruff: noqa: S608  # statements made of constants
"""Counts per event, kept as differences: what a statement changes in rows is told to count_changes in the same
transaction, so the counts are exact whatever becomes of it (design §5.6, F4).

Where all rows are new the differences follow from what was gathered (`of_notifications`, `of_deliveries`). Where some
may be there, the statement that merges tells what each row was and is: PostgreSQL 18 does so by itself; before it the
new rows are put in first, the others locked, and only then looked at and merged. A row whose event is not known yet
counts from when it is.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from psycopg2.extras import execute_values

from tocsin.domain.delivery import History
from tocsin.domain.shown import shown
from tocsin.storage.gathered import Delivery, Notification

Place = tuple[str, str, str, str]
"""Event, channel, status and reason of what is counted; channel and reason may be ''."""

NOTIFICATIONS: Final = ""
"""Stands for a channel where notifications are counted."""
MADE: Final = "MADE"
LISTED: Final = "LISTED"
READ: Final = "READ"

_TELLS_BOTH: Final = 180_000
INTO: Final = "insert into count_changes (event_id, channel, status, reason, difference)"

# Each tallies rows of `changed`, in which the columns of a row before and after stand side by side.
_TALLY: Final = {
    "notifications": f"""
{INTO}
select new_event_id, '{NOTIFICATIONS}', told.status, '', sum(told.difference)
from changed cross join lateral (values
  ('{MADE}', 1 - (old_event_id is not null)::integer),
  ('{LISTED}', (new_listed_at is not null)::integer - (old_event_id is not null and old_listed_at is not null)::integer)
  , ('{READ}', (new_read_at is not null)::integer - (old_event_id is not null and old_read_at is not null)::integer)
) as told (status, difference)
where new_event_id is not null and told.difference <> 0
group by new_event_id, told.status
""",
    "deliveries": f"""
{INTO}
select event_id, channel, status, coalesce(reason, ''), sum(difference) from changed
cross join lateral (values (new_event_id, new_channel, new_status, new_reason, 1),
  (old_event_id, old_channel, old_status, old_reason, -1)) as told (event_id, channel, status, reason, difference)
where event_id is not null
group by event_id, channel, status, coalesce(reason, '') having sum(difference) <> 0
""",
}
_LOOKED_AT: Final = {
    "notifications": ("event_id", "listed_at", "read_at"),
    "deliveries": ("event_id", "channel", "status", "reason"),
}
# The order in which rows are written: whoever locks them keeps to it.
_ORDER: Final = {"notifications": "id", "deliveries": "notification_id, step"}

OF_READ: Final = f"""
{INTO}
select event_id, '{NOTIFICATIONS}', '{READ}', '', count(*) from changed where event_id is not null group by event_id
"""
"""Tallies rows of `changed` that were not read and are; of one whose event is not known it is told later."""


class Merge:
    """The statements that merge rows of a table and tell the differences. `merge` is an INSERT … ON CONFLICT (id) DO
    UPDATE from incoming_<table> that calls a row that is there `known`, `columns` those that it fills."""

    def __init__(self, table: str, columns: str, merge: str) -> None:
        self._at_once = (f"with changed as ({merge} returning {_both(table)}) {_TALLY[table]}",)
        incoming = f"(select id from incoming_{table})"
        fresh = (
            f"insert into {table} as known ({columns}) select {columns} from incoming_{table} on conflict do nothing"
        )
        self._by_steps = (
            f"with after as ({fresh} returning known.*), {_beside(table, 'where false')} {_TALLY[table]}",
            f"select from {table} where id in {incoming} order by {_ORDER[table]} for update",
            f"with after as ({merge} returning known.*), {_beside(table, f'where id in {incoming}')} {_TALLY[table]}",
        )

    def statements(self, server_version: int) -> tuple[str, ...]:
        """Those for a server of this version, such as 180001."""
        return self._at_once if server_version >= _TELLS_BOTH else self._by_steps


def of_locked(table: str, before: str, update: str) -> str:
    """A statement that tells the differences of `update`, whose rows this transaction has locked and knows as `known`.
    `before` is the clause that finds them."""
    return f"after as ({update} returning known.*), {_beside(table, before)} {_TALLY[table]}"


def of_notifications(rows: Mapping[str, Notification]) -> Counter[Place]:
    """What is counted of rows that are new and whose events are known."""
    counts: Counter[Place] = Counter()
    for row in rows.values():
        event = row.event or ""
        counts[event, NOTIFICATIONS, MADE, ""] += 1
        if row.listed_ms is not None:
            counts[event, NOTIFICATIONS, LISTED, ""] += 1
        if row.read_ms is not None:
            counts[event, NOTIFICATIONS, READ, ""] += 1
    return counts


def of_deliveries(rows: Iterable[Delivery]) -> Counter[Place]:
    """As of_notifications. Rows that began alike share a history (gathered.py), which is looked at once."""
    alike: Counter[tuple[str | None, str, int]] = Counter()
    histories: dict[int, History] = {}
    for row in rows:
        place = id(row.history)
        histories[place] = row.history
        alike[row.event, row.channel, place] += 1
    standing = {place: shown(history) for place, history in histories.items()}
    counts: Counter[Place] = Counter()
    for (event, channel, place), count in alike.items():
        told = standing[place]
        counts[event or "", channel, told.status, told.reason or ""] += count
    return counts


def add(query: Any, counts: Counter[Place]) -> None:
    """Tells differences, in this transaction."""
    if counts:
        execute_values(query, f"{INTO} values %s", [(*place, count) for place, count in sorted(counts.items())])


def _both(table: str) -> str:
    """Each looked-at column before and after, as PostgreSQL 18 tells them."""
    return ", ".join(f"{age}.{name} as {age}_{name}" for age in ("old", "new") for name in _LOOKED_AT[table])


def _beside(table: str, where: str) -> str:
    """The same, made of `after` and of what the rows that `where` finds were when the statement began."""
    before = ", ".join(f"before.{name} as old_{name}" for name in _LOOKED_AT[table])
    after = ", ".join(f"after.{name} as new_{name}" for name in _LOOKED_AT[table])
    names = ", ".join(_LOOKED_AT[table])
    return (
        f"before as (select id, {names} from {table} {where}),"
        f" changed as (select {before}, {after} from after left join before using (id))"
    )
