"""Facts into Postgres: a batch of journal entries is one transaction, and applying it again changes nothing (F6).

Rows are written table by table, always in the same order, so that persisters that work on the same rows wait for each
other instead of blocking each other. Called by actors/persist.py.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from psycopg2.extras import execute_values

from tocsin.storage import cancellations, counting, lives, merging
from tocsin.storage.accepted_rows import as_json
from tocsin.storage.copying import put
from tocsin.storage.database import Refused, cursor, judging
from tocsin.storage.gathered import Callback, EventProgress, Gathered, gather
from tocsin.storage.incoming import delivery_lines, notification_lines
from tocsin.storage.transactions import in_transaction

__all__ = ["Refused", "refuse", "store"]

_HAS_TRANSACTION_TIMEOUT: Final = 170_000
_LONGEST_MS: Final = 60_000
_BEGUN_MS: Final = 5_000
"""For how long whoever was asked to stop something is left at it, before others go on."""

Entry = tuple[str, Sequence[Mapping[str, Any]]]


def store(entries: Sequence[Entry], *, epoch: str = "", patience_ms: int | None = None) -> None:
    """Stores the facts of `entries`, all or none. Raises Refused where Postgres will never take them: one bad entry is
    enough, so the caller halves the batch. `patience_ms`: how long it waits for a row that another holds, where that is
    not as long as everybody waits. `epoch`: the life of Redis they were taken from, where that is known."""
    rows = gather(entries)
    try:
        with judging():
            in_transaction(lambda: _write(rows, patience_ms, lambda query: _mark(query, epoch, entries)))
    except ValueError as error:
        # psycopg2 itself refuses what no text of Postgres can hold.
        raise Refused("a fact holds a character that cannot be stored") from error


def refuse(entry_id: str, facts: Sequence[Mapping[str, Any]], why: str) -> None:
    """Keeps an entry that Postgres refuses, as bytes, so that nothing is lost."""
    kept = json.dumps(facts).encode()
    with cursor() as query:
        query.execute(
            "insert into bad_facts (entry_id, facts, why) values (%s, %s, %s) on conflict do nothing",
            (entry_id, kept, why.replace("\0", "")),
        )


def _write(rows: Gathered, patience_ms: int | None, mark: Callable[[Any], None]) -> None:
    with cursor() as query:
        _limit(query, patience_ms)
        if rows.accepted:
            _write_accepted(query, rows)
        if rows.events:
            values = [_event_values(identifier, row) for identifier, row in sorted(rows.events.items())]
            execute_values(query, merging.EVENTS, values, template=merging.EVENT_VALUES)
        if rows.notifications:
            notes = rows.notifications
            new = all(row.event is not None for row in notes.values())
            if put(query, merging.NOTIFICATIONS, lambda: notification_lines(notes), new=new):
                counting.add(query, counting.of_notifications(notes))
        if rows.deliveries:
            made = rows.deliveries
            new = all(row.event is not None for row in made.values())
            if put(query, merging.DELIVERIES, lambda: delivery_lines(made), new=new):
                counting.add(query, counting.of_deliveries(made.values()))
        if rows.callbacks:
            values = [_callback_values(rows.callbacks[place]) for place in sorted(rows.callbacks)]
            execute_values(query, merging.CALLBACKS, values, template=merging.CALLBACK_VALUES)
        for asked in rows.stoppings.values():
            cancellations.begin(asked, _BEGUN_MS)
        mark(query)


def _mark(query: Any, epoch: str, entries: Sequence[Entry]) -> None:
    """Says how far the journal is stored; last, for these rows are everybody's."""
    if epoch:
        lives.mark(query, epoch, max(int(identifier.rpartition("-")[2]) for identifier, _ in entries))


def _limit(query: Any, patience_ms: int | None) -> None:
    """Bounds this transaction. One whose process is frozen while Postgres waits for its rows is not idle in the eyes of
    Postgres, and only its newer versions have a limit for that."""
    limits = {"lock_timeout": patience_ms}
    if query.connection.server_version >= _HAS_TRANSACTION_TIMEOUT:
        limits["transaction_timeout"] = _LONGEST_MS
    for name, limit_ms in limits.items():
        if limit_ms is not None:
            query.execute("select set_config(%s, %s, true)", (name, str(limit_ms)))


def _write_accepted(query: Any, rows: Gathered) -> None:
    given = as_json({row.event.id: row for row in rows.accepted}.values())
    query.execute(merging.KEYS, (given,))
    query.execute(merging.ACCEPTED, (given,))
    query.execute(merging.IDEMPOTENCY, (given,))


def _event_values(identifier: str, row: EventProgress) -> tuple[Any, ...]:
    cancelled = row.cancelled or (None, None, None)
    return (
        identifier,
        row.generation,
        row.status,
        row.expected,
        row.error,
        row.started_ms,
        row.completed_ms,
        *cancelled,
    )


def _callback_values(told: Callback) -> tuple[Any, ...]:
    named = (told.delivery, told.attempt, told.provider_id, told.word)
    return (told.provider, told.id, told.at_ms, told.cid, _json(told.raw), *named)


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)
