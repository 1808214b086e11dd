"""Replays of events that were given up, whole or in part: the people who have no notification yet are routed (R4).

Whoever was routed keeps what they have; ids are derived, so nothing would tell the two apart in Postgres, but in Redis
it would start again. Therefore what is in motion is looked at before Postgres is, which has to be up to date with it,
and reenter.lua refuses when something moved since. Where Postgres refused to store something of the event it cannot be
said who was routed. What is known of deliveries of people who are not stored as routed, such as after a loss of Redis,
is put where route looks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from tocsin.domain.delivery import Reason
from tocsin.domain.event import Event, EventStatus
from tocsin.storage import models
from tocsin.storage.accepted_rows import CONTENT, event_of, recipients_of
from tocsin.storage.audit import audit
from tocsin.storage.by import By
from tocsin.storage.counts import counts_of
from tocsin.storage.database import cursor
from tocsin.storage.event_keys import holder_of
from tocsin.storage.flight_parts import Walk, text_of_walk
from tocsin.storage.keys import Keys
from tocsin.storage.ledger import refused
from tocsin.storage.moments import ms_of
from tocsin.storage.rebuild_queries import StoredEvent, Unrouted, unrouted
from tocsin.storage.recall import Recall
from tocsin.storage.redis import told
from tocsin.storage.scripts import Scripts
from tocsin.storage.transactions import in_transaction

_BEGIN: Final = """
update events set generation = %s, status = %s, error = null, completed_at = null
where id = %s::uuid and generation < %s
"""


@dataclass(frozen=True, slots=True)
class NextGeneration:
    """An event as it is entered once more: whose notifications are still to be made, as far as they were named, and how
    its audience goes on."""

    event: Event
    unrouted: Unrouted
    walk: Walk | None


Enter = Callable[[NextGeneration], str]
"""Enters it in Redis; answers as reenter.lua."""


class Reentry:
    """The part in Redis. Raises RedisAway."""

    def __init__(self, client: Any, scripts: Scripts, keys: Keys, refilling: Recall) -> None:
        self._client = client
        self._scripts = scripts
        self._keys = keys
        self._refilling = refilling

    async def routed(self, event: UUID) -> str:
        """How many chunks of an event were routed, as text; empty where Redis has forgotten the event."""
        with told():
            return str(await self._client.hget(self._keys.event(event), "routed") or "")

    async def enter(self, again: NextGeneration, seen: str) -> str:
        """Enters an event once more unless chunks were routed beside those that were `seen`."""
        event, unrouted = again.event, again.unrouted
        users = {note: person.id for note, person in unrouted.people.items()}
        await self._refilling.mark_read({note: (users[note], at_ms) for note, at_ms in unrouted.read_ms.items()})
        await self._refilling.mark_known(event, [(each.notification, each.step) for each in unrouted.known])
        people = (person.model_dump_json(exclude_none=True) for person in unrouted.people.values())
        mandatory = "1" if event.mandatory else "0"
        told_of = (event.id, event.model_dump_json(), event.type, mandatory, event.generation, seen, unrouted.routed)
        return str(await self._scripts.run("reenter", *told_of, text_of_walk(again.walk), *people))


def reenter(event: UUID, by: By, enter: Enter) -> str:
    """Enters a FAILED event again. Answers "entered", "busy", "skipped" for one that did not fail, "cancelled", or
    "replaced" where a later one has its key. Run by Postgres.call; what `enter` raises leaves the event as it is."""
    return in_transaction(lambda: _reenter(event, by, enter))


def _reenter(identifier: UUID, by: By, enter: Enter) -> str:
    query = models.Event.select().where(models.Event.id == identifier, models.Event.accepted_at.is_null(False))
    row = query.for_update().first()
    if row is None or row.status != EventStatus.FAILED:
        return "skipped"
    if hindrance := _hindrance(row):
        return hindrance
    again = _again(row)
    if not again.unrouted.routed and counts_of([identifier])[identifier].notifications:
        # The rows of those who were routed were dropped with their time (dropping.py): nobody knows any more who was.
        return "skipped"
    answer = enter(again)
    if answer in {"busy", "cancelled"}:
        return answer
    generation = again.event.generation
    with cursor() as query:
        query.execute(_BEGIN, (generation, EventStatus.PROCESSING, str(identifier), generation))
        query.execute("delete from discards where id = %s::uuid", (str(identifier),))
    detail = {"event": str(identifier), "recipients": len(again.unrouted.people), "error": row.error}
    audit("dead_letters.replayed", by.actor, by.cid, detail)
    return "entered"


def _hindrance(row: models.Event) -> str | None:
    if row.cancelled_at is not None:
        return str(Reason.CANCELLED)
    holder = holder_of(row.event_key) if row.event_key else None
    if holder is not None and holder.event != row.id:
        return str(Reason.REPLACED)
    return "busy" if refused([str(row.id)]) else None


def _again(row: models.Event) -> NextGeneration:
    content = {name: getattr(row, name) for name in ("id", *CONTENT)}
    event = event_of({**content, "accepted_ms": ms_of(row.accepted_at)})
    stored = StoredEvent(event, recipients_of(row.recipients), cancelled=False, horizon=row.horizon or "")
    following = event.model_copy(update={"generation": event.generation + 1})
    return NextGeneration(following, unrouted(stored), stored.walk)
