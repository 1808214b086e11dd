"""Gathered rows as lines of COPY for merging.py, notifications sorted by id, deliveries by notification and step.

Any order will do that is always the same; in this one the ids of deliveries, which cost a hash each, are made while
Postgres takes in the lines before.

Most deliveries of a batch were routed together and differ only in their ids, people and addresses. They share one
history object (gathered.py), so what that shows is written once.
"""

from collections.abc import Iterator, Mapping

from pydantic_core import to_json

from tocsin.domain.delivery import History
from tocsin.domain.ids import delivery_id_text
from tocsin.domain.shown import shown
from tocsin.storage.copying import field, moment, number
from tocsin.storage.gathered import Delivery, Notification


def notification_lines(rows: Mapping[str, Notification]) -> Iterator[str]:
    """The notifications in the columns of merging.NOTIFICATIONS."""
    for identifier in sorted(rows):
        row = rows[identifier]
        yield (
            f"{identifier}\t{field(row.event)}\t{field(row.user)}\t{field(row.cid)}"
            f"\t{moment(row.routed_ms)}\t{moment(row.listed_ms)}\t{moment(row.read_ms)}"
        )


def delivery_lines(rows: Mapping[tuple[str, int], Delivery]) -> Iterator[str]:
    """The deliveries in the columns of merging.DELIVERIES."""
    written: dict[int, tuple[str | None, str]] = {}
    for place in sorted(rows):
        note, step = place
        row = rows[place]
        parts = written.get(id(row.history))
        if parts is None:
            # The rows keep their histories alive as long as this lasts, so an object's id stays its own.
            parts = written[id(row.history)] = _written(row.history)
        address, columns = parts
        yield (
            f"{delivery_id_text(note, step, row.channel)}\t{note}\t{field(row.event)}\t{field(row.user)}\t{step}"
            f"\t{row.channel}"
            f"\t{moment(row.scheduled_ms)}\t{field(row.address if address is None else address)}\t{columns}"
        )


def _written(history: History) -> tuple[str | None, str]:
    """The address that a history shows, and its columns from `status` on."""
    told = shown(history)
    columns = (
        told.status,
        field(told.reason),
        str(told.attempt_count),
        number(told.max_attempts),
        moment(told.queued_ms),
        moment(told.last_attempted_ms),
        moment(told.next_attempt_ms),
        moment(told.sent_ms),
        moment(told.delivered_ms),
        field(told.provider),
        field(told.provider_id),
        field(told.provider_status),
        field(told.error_code),
        field(told.error_message),
        field(told.price),
        number(told.segments),
        # A third of what the standard library takes, which was a tenth of all work on an outcome.
        field(to_json(history).decode()),
    )
    return told.address, "\t".join(columns)
