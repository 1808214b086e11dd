"""What the sandbox's servers received, for a developer to read (C8). Served only under `tocsin serve --sandbox`."""

from __future__ import annotations

from typing import Final

from tocsin.channels.sandbox.outbox import Entry
from tocsin.domain.delivery import Channel
from tocsin.domain.errors import NotFound
from tocsin.http.caller import VIEWERS
from tocsin.http.cursors import page_of
from tocsin.http.endpoint import Call, Endpoint
from tocsin.http.problems import BAD_CURSOR, UNKNOWN_CHANNEL, Problem
from tocsin.http.shapes import Answer, Listing, Moment, Paging


class OutboxQuery(Paging):
    """Which of the messages, newest first."""

    channel: Channel | None = None
    notification: str | None = None
    delivery: str | None = None


class OutboxEntry(Answer):
    """One message as it arrived at a sandbox server."""

    id: int
    channel: Channel
    provider: str = "sandbox"
    received_at: Moment
    to: str
    subject: str | None
    text: str
    html: str | None
    headers: dict[str, str]
    segments: int | None
    delivery_id: str | None
    notification_id: str | None
    attempt: int | None


class OutboxPage(Listing[OutboxEntry]):
    """A page of the outbox."""

    received: int
    """How many messages ever came, those that are no longer kept among them."""


async def list_outbox(call: Call[None, OutboxQuery]) -> OutboxPage:
    """Mail, SMS and push that the sandbox's servers received, newest first. Nothing of it left this machine."""
    outbox, query = call.context.outbox, call.query
    if outbox is None:
        raise NotFound
    before = _before(query.cursor)
    found = [entry for entry in reversed(outbox.entries(query.channel)) if entry.id < before and _fits(entry, query)]
    page, after = page_of(found, query.limit, lambda last: last.id)
    return OutboxPage(
        data=tuple(map(_shown, page)),
        next_cursor=after,
        received=outbox.received,
    )


def _before(cursor: str | None) -> float:
    if cursor is None:
        return float("inf")
    if not (cursor.isascii() and cursor.isdigit()):
        raise Problem(BAD_CURSOR, field="cursor")
    return float(cursor)


def _fits(entry: Entry, query: OutboxQuery) -> bool:
    wanted = ((query.notification, entry.notification), (query.delivery, entry.delivery))
    return all(asked in {None, found} for asked, found in wanted)


def _shown(entry: Entry) -> OutboxEntry:
    return OutboxEntry(
        id=entry.id,
        channel=entry.channel,
        received_at=entry.at_ms,
        to=entry.to,
        subject=entry.subject,
        text=entry.text,
        html=entry.html,
        headers=dict(entry.headers),
        segments=entry.segments,
        delivery_id=entry.delivery,
        notification_id=entry.notification,
        attempt=entry.attempt,
    )


ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path="/api/sandbox/outbox",
        handler=list_outbox,
        summary="What the sandbox received",
        tag="sandbox",
        who=VIEWERS,
        query=OutboxQuery,
        answer=OutboxPage,
        problems=(BAD_CURSOR, UNKNOWN_CHANNEL),
    ),
)
