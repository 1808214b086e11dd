"""Which event has a caller's own key (E3): one live event has it, and the row of the key is the one door. Run by
Postgres.call.

An event is live while something of it has not gone out: people are still to be routed, or a delivery waits or is under
way.
"""

import json
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID, uuid4

from tocsin.domain.errors import KeyBusy, RedisAway, TocsinError
from tocsin.domain.event import EventStatus
from tocsin.storage import cancellations
from tocsin.storage.accepted import Accepted, Stored, store_accepted
from tocsin.storage.cancellations import Cancellation, Wanted
from tocsin.storage.counts import counts_of
from tocsin.storage.database import cursor
from tocsin.storage.transactions import in_transaction

_EARLIER: Final = """
select hash, event_id::text, answer from idempotency
where scope = %s and key = %s and created_at >= now() - interval '1 day'
"""
_REMEMBER: Final = """
insert into idempotency (scope, key, hash, event_id, answer) values (%s, %s, %s, %s, %s)
on conflict (scope, key) do update set hash = excluded.hash, event_id = excluded.event_id, answer = excluded.answer,
  created_at = now()
"""
_CLAIM: Final = """
insert into event_keys (key, event_id, signature) values (%s, %s, %s) on conflict (key) do nothing
"""
_TAKE_OVER: Final = "update event_keys set event_id = %s, signature = %s, at = now() where key = %s"
# What was posted so long ago is live no more.
_FORGET: Final = """
delete from event_keys where ctid = any(array(
  select ctid from event_keys where at < now() - interval '60 days' order by at limit %s for update skip locked
))
"""
_RECENT: Final = """
select key, event_id, signature from event_keys
where key > %s and at > now() - %s * interval '1 ms' order by key limit %s
"""
# Notifications that are not there an hour after their fan-out will not be: reconciliation has said so.
_STANDING: Final = """
select status, expected, cancelled_at is not null, completed_at > now() - interval '1 hour' from events where id = %s
"""
REPLACED: Final = "REPLACED"
UNCHANGED: Final = "UNCHANGED"
WHY_REPLACED: Final = "replaced by another event with its key"


@dataclass(frozen=True, slots=True)
class Holder:
    """The event that has a key."""

    event: UUID
    signature: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an event with a key. `replay` is what its idempotency key was answered before, `unchanged` the
    event that says the same, in both of which nothing was stored; `replaced` the event that said something else, and is
    to be stopped."""

    replay: dict[str, Any] | None = None
    unchanged: UUID | None = None
    replaced: UUID | None = None


class _Settled(Exception):  # it is no error
    """An answer for which what was done on the way is taken back."""

    def __init__(self, answer: Stored | TocsinError) -> None:
        super().__init__()
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Doubt:
    """That Postgres may not have heard of all there was: the event that Redis remembers of a key may be one that it
    does not know, and one that it takes for live may have gone out."""

    remembered: UUID | None


def store_keyed(row: Accepted, now_ms: int, *, may_replace: bool, doubt: Doubt | None = None) -> Outcome:
    """Stores an event with a key, or finds that it need not be. Whoever else has that key in hand is waited for. Raises
    KeyMismatch, Refused, KeyBusy where what to do cannot be known yet, and RedisAway where another was to be stopped
    and it may not be."""
    try:
        return in_transaction(lambda: _store_keyed(row, now_ms, doubt, may_replace=may_replace))
    except _Settled as settled:
        if isinstance(settled.answer, TocsinError):
            raise settled.answer from None
        return Outcome(replay=settled.answer.replay)


def holder_of(key: str, remembered: Holder | None = None) -> Holder | None:
    """The event that has a key, live or not. `remembered` is what Redis has: it is later than all that are stored where
    it is not."""
    with cursor() as query:
        if remembered is not None and not _is_stored(query, remembered.event):
            return remembered
        query.execute("select event_id, signature from event_keys where key = %s", (key,))
        found = query.fetchone()
    return Holder(*found) if found else None


def recent(within_ms: int, after: str, limit: int) -> list[tuple[str, Holder]]:
    """Keys of events that were posted in the last `within_ms`, in their order: up to `limit` after the key `after`."""
    with cursor() as query:
        query.execute(_RECENT, (after, within_ms, limit))
        return [(key, Holder(event, signature)) for key, event, signature in query.fetchall()]


def is_live(event: UUID) -> bool:
    """Whether something of an event has not gone out, as far as is stored."""
    with cursor() as query:
        query.execute(_STANDING, (str(event),))
        found = query.fetchone()
    if found is None:
        return False
    status, expected, cancelled, just_now = found
    counts = counts_of([event])[event]
    if cancelled or status == EventStatus.FAILED:
        return not cancelled and counts.waiting > 0
    if status != EventStatus.COMPLETED or counts.waiting > 0:
        return True
    return bool(just_now) and counts.notifications < (expected or 0)


def answered(row: Accepted, more: dict[str, Any]) -> Accepted:
    """The same with more in what its idempotency key is answered."""
    given = row.idempotency
    if given is None:
        return row
    return replace(row, idempotency=replace(given, answer=(given.answer or {}) | more))


def forget_keys(limit: int) -> None:
    """Removes up to `limit` keys whose last event was posted sixty days ago."""
    with cursor() as query:
        query.execute(_FORGET, (limit,))


def _store_keyed(row: Accepted, now_ms: int, doubt: Doubt | None, *, may_replace: bool) -> Outcome:
    event, given = row.event, row.idempotency
    with cursor() as query:
        if given is not None:
            # Told before the key is looked at: the first request may have changed what it stands for.
            query.execute(_EARLIER, (given.scope, given.key))
            if query.rowcount:
                _store(row)
        holder = _claim(query, event.event_key, event.id, event.signature)
        if doubt and doubt.remembered and not _is_stored(query, doubt.remembered):
            raise KeyBusy("an event with this key was taken that Postgres has not heard of yet")
        live = holder is not None and is_live(holder.event)
        if holder is not None and live and holder.signature == event.signature:
            if doubt:
                raise KeyBusy("whether the event with this key has gone out is not stored yet")
            _remember(query, row, holder.event)
            return Outcome(unchanged=holder.event)
        if holder is not None:
            query.execute(_TAKE_OVER, (str(event.id), event.signature, event.event_key))
        if holder is None or not live:
            _store(row)
            return Outcome()
        if not may_replace:
            raise RedisAway("another event has this key, and cannot be stopped while Redis is away")
        _stop(query, holder.event, row, now_ms)
        _store(answered(row, {"result": REPLACED, "replacedId": str(holder.event)}))
        return Outcome(replaced=holder.event)


def _claim(query: Any, key: str | None, event: UUID, signature: str | None) -> Holder | None:
    """The event that had the key before; it is the new one's from now on, unless the transaction says otherwise."""
    query.execute(_CLAIM, (key, str(event), signature))
    if query.rowcount:
        return None
    query.execute("select event_id, signature from event_keys where key = %s for update", (key,))
    holder = Holder(*query.fetchone())
    return None if holder.event == event else holder


def _is_stored(query: Any, event: UUID) -> bool:
    query.execute("select from events where id = %s and accepted_at is not null", (str(event),))
    return bool(query.rowcount)


def _stop(query: Any, event: UUID, row: Accepted, now_ms: int) -> None:
    """Keeps that an event is withdrawn, and that its deliveries are to be ended, in the transaction of the new one."""
    by = row.event.sender
    query.execute(
        "update events set cancelled_at = tocsin_time(%s), cancel_reason = %s, cancelled_by = %s"
        " where id = %s and cancelled_at is null",
        (now_ms, WHY_REPLACED, by, str(event)),
    )
    wanted = Wanted((event,))
    cancellations.begin(Cancellation(uuid4(), now_ms, by, row.event.cid, WHY_REPLACED, wanted, place="named"), 0)


def _remember(query: Any, row: Accepted, event: UUID) -> None:
    """Keeps what the request is answered, should it be repeated."""
    given = row.idempotency
    if given is not None:
        answer = json.dumps((given.answer or {}) | {"id": str(event), "result": UNCHANGED})
        query.execute(_REMEMBER, (given.scope, given.key, given.hash, str(event), answer))


def _store(row: Accepted) -> None:
    """Stores the event itself. Raises _Settled where that was done before, or cannot be."""
    (answer,) = store_accepted([row])
    if isinstance(answer, TocsinError) or answer.replay is not None:
        raise _Settled(answer)
