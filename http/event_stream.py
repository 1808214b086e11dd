"""`GET /api/events/{event}/stream`: how far an event is, live, as Server-Sent Events (F4).

Any process that serves HTTP can tell it, for all of it is read from Postgres, where it costs a few rows. What is sent
is the whole state each time, so whoever comes back needs no more than the newest; its id tells states apart.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final
from uuid import UUID

from loguru import logger
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response

from tocsin.domain.errors import NotFound, Unavailable
from tocsin.domain.event import EventStatus
from tocsin.http.caller import VIEWERS
from tocsin.http.context import Context
from tocsin.http.endpoint import Call, Endpoint
from tocsin.http.event_shapes import Counts, counts_shown
from tocsin.http.shapes import Answer, Moment, NoQuery
from tocsin.storage import queries
from tocsin.storage.event_queries import EventRow
from tocsin.storage.queries import EventAudit

_MEDIA_TYPE: Final = "text/event-stream"
_PING_S: Final = 15
_COME_BACK_MS: Final = 2_000
_LOOK_S: Final = 1.0
_LATE_MS: Final = 600_000
"""For how long after its fan-out people of an event who are missing are waited for."""
_ENDED: Final = frozenset({EventStatus.COMPLETED, EventStatus.FAILED})


class Progress(Answer):
    """How far an event is."""

    id: UUID
    status: EventStatus
    started_at: Moment | None
    completed_at: Moment | None
    cancelled_at: Moment | None
    error: str | None
    counts: Counts
    final: bool
    """Whether nothing more is to go out. Receipts and reads may still come."""


async def get_event_stream(call: Call[None, NoQuery]) -> Response:
    """Each change is an event `counts`, a second after the one before at the earliest; the last one says `final`, and
    the stream ends. Who comes back with the id of that one as `Last-Event-ID` is answered 204, which ends an
    `EventSource`."""
    event, last = call.id("event"), call.request.headers.get("last-event-id")
    found = await call.context.store.postgres.call(queries.event_audit, event)
    if found is None:
        raise NotFound
    if call.request.method == "HEAD":
        return Response(media_type=_MEDIA_TYPE)
    told = _progress(found)
    if told.final and last == _identity(told):
        return Response(status_code=204)
    return EventSourceResponse(_events(call.context, told, last), ping=_PING_S)


async def _events(context: Context, told: Progress, last: str | None) -> AsyncIterator[ServerSentEvent]:
    yield ServerSentEvent(retry=_COME_BACK_MS, comment="open")
    try:
        while True:
            identity = _identity(told)
            if identity != last:
                yield ServerSentEvent(told.model_dump_json(), event="counts", id=identity)
                last = identity
            if told.final:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(context.stopping.wait(), _LOOK_S)
                return
            found = await context.store.postgres.call(queries.event_audit, told.id)
            if found is None:
                return
            told = _progress(found)
    except Unavailable as error:
        # The page comes back by itself.
        logger.info("a stream of an event ends: {}", error)


def _progress(found: EventAudit) -> Progress:
    row, counts = found.row, counts_shown(found)
    status = EventStatus(row.status)
    return Progress(
        id=row.event.id,
        status=status,
        started_at=row.started_ms,
        completed_at=row.completed_ms,
        cancelled_at=row.cancelled_ms,
        error=row.error,
        counts=counts,
        final=_is_final(row, counts),
    )


def _is_final(row: EventRow, counts: Counts) -> bool:
    """What was made and that all was made may be stored by different processes, one before the other. Who is missing
    for long is for reconciliation, and is not waited for here."""
    if row.status not in _ENDED or counts.waiting:
        return False
    since_ms = time.time_ns() // 1_000_000 - (row.completed_ms or 0)
    return row.status != EventStatus.COMPLETED or not counts.missing or since_ms > _LATE_MS


def _identity(told: Progress) -> str:
    return hashlib.blake2b(told.model_dump_json().encode(), digest_size=9).hexdigest()


ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path="/api/events/{event}/stream",
        handler=get_event_stream,
        summary="How far an event is, live",
        tag="events",
        who=VIEWERS,
        media_type=_MEDIA_TYPE,
        parameters=(
            {
                "name": "Last-Event-ID",
                "in": "header",
                "description": "The id of the last state seen.",
                "schema": {"type": "string"},
            },
        ),
    ),
)
