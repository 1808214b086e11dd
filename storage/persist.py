"""Facts into Postgres: a batch of journal entries is one transaction, and applying it again changes nothing (F6).

Rows go by COPY into a temporary table and from there by INSERT … ON CONFLICT, sorted by key, so that persisters that
work on the same rows wait for each other instead of blocking each other. Called by actors/persist.py.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from psycopg2.extras import execute_values

from tocsin.domain import ids
from tocsin.domain.shown import shown
from tocsin.storage import accepted_rows, merging
from tocsin.storage.copying import copy_in, field, number
from tocsin.storage.database import Refused, cursor
from tocsin.storage.gathered import Callback, Delivery, EventProgress, Gathered, Notification, gather
from tocsin.storage.transactions import in_transaction

__all__ = ["Refused", "refuse", "store"]

Entry = tuple[str, Sequence[Mapping[str, Any]]]


def store(entries: Sequence[Entry]) -> None:
    """Stores the facts of `entries`, all or none. Raises Refused where Postgres will never take them: one bad entry is
    enough, so the caller halves the batch."""
    rows = gather(entries)
    in_transaction(lambda: _write(rows))


def refuse(entry_id: str, facts: Sequence[Mapping[str, Any]], why: str) -> None:
    """Keeps an entry that Postgres refuses, as bytes, so that nothing is lost."""
    kept = json.dumps(facts).encode()
    with cursor() as query:
        query.execute(
            "insert into bad_facts (entry_id, facts, why) values (%s, %s, %s) on conflict do nothing",
            (entry_id, kept, why.replace("\0", "")),
        )


def _write(rows: Gathered) -> None:
    with cursor() as query:
        if rows.accepted:
            _write_accepted(query, rows)
        if rows.events:
            values = [_event_values(identifier, row) for identifier, row in sorted(rows.events.items())]
            execute_values(query, merging.EVENTS, values, template=merging.EVENT_VALUES)
        if rows.notifications or rows.deliveries:
            query.execute(merging.INCOMING)
        if rows.notifications:
            notes = sorted(rows.notifications.items())
            copy_in(query, "incoming_notifications", (_notification_line(*item) for item in notes))
            query.execute(merging.NOTIFICATIONS)
        if rows.deliveries:
            copy_in(query, "incoming_deliveries", sorted(_delivery_line(*item) for item in rows.deliveries.items()))
            query.execute(merging.DELIVERIES)
        if rows.callbacks:
            values = [_callback_values(rows.callbacks[place]) for place in sorted(rows.callbacks)]
            execute_values(query, merging.CALLBACKS, values, template=merging.CALLBACK_VALUES)


def _write_accepted(query: Any, rows: Gathered) -> None:
    once = {row.event.id: row for row in rows.accepted}
    values = [accepted_rows.values_of(once[identifier]) for identifier in sorted(once)]
    execute_values(query, merging.ACCEPTED, values, template=merging.ACCEPTED_VALUES)
    keys = {
        (given.scope, given.key): (given.scope, given.key, given.hash, str(row.event.id), _json(given.answer))
        for row in rows.accepted
        if (given := row.idempotency)
    }
    if keys:
        execute_values(query, merging.IDEMPOTENCY, [keys[place] for place in sorted(keys)])


def _event_values(identifier: str, row: EventProgress) -> tuple[Any, ...]:
    cancelled = row.cancelled or (None, None, None)
    return (identifier, row.status, row.expected, row.error, row.started_ms, row.completed_ms, *cancelled)


def _callback_values(told: Callback) -> tuple[Any, ...]:
    return (told.provider, told.id, told.at_ms, told.cid, _json(told.raw))


def _notification_line(identifier: str, row: Notification) -> str:
    times = (number(row.routed_ms), number(row.listed_ms), number(row.read_ms))
    return "\t".join((identifier, field(row.event), field(row.user), field(row.cid), *times))


def _delivery_line(place: tuple[str, int], row: Delivery) -> str:
    notification, step = place
    told = shown(row.history)
    return "\t".join(
        (
            str(ids.delivery_id(UUID(notification), step, row.channel)),
            notification,
            field(row.event),
            field(row.user),
            str(step),
            row.channel,
            told.status,
            field(told.reason),
            str(told.attempt_count),
            number(told.max_attempts),
            field(told.address or row.address),
            number(row.scheduled_ms),
            number(told.queued_ms),
            number(told.last_attempted_ms),
            number(told.next_attempt_ms),
            number(told.sent_ms),
            number(told.delivered_ms),
            field(told.provider),
            field(told.provider_id),
            field(told.provider_status),
            field(told.error_code),
            field(told.error_message),
            field(told.price),
            number(told.segments),
            field(json.dumps(row.history, ensure_ascii=False, separators=(",", ":"))),
        )
    )


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)
