"""Journal entries as rows: what belongs to one row is merged before Postgres sees it. Pure; raises Refused for facts
that make no sense."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from tocsin.domain.delivery import Channel, Fact, History, Status, key, merge
from tocsin.domain.event import Event, EventStatus, Recipient
from tocsin.storage.accepted_rows import Accepted, Idempotency
from tocsin.storage.cancellations import Cancellation, of_fact
from tocsin.storage.database import Refused
from tocsin.storage.routed import parts

_TEXTS: Final = frozenset(
    {
        *("reason", "provider", "provider_id", "word", "code", "message", "price", "address", "cid"),
        *("by", "note", "method", "confidence"),
    }
)
_is_uuid: Final = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch
_CHANNELS: Final = {str(channel): channel for channel in Channel}
_NUMBERS: Final = frozenset({"due", "segments", "attempts", "difference"})


@dataclass(slots=True)
class Notification:
    """What is known of a notification; times in ms."""

    user: str
    event: str | None = None
    cid: str | None = None
    routed_ms: int | None = None
    listed_ms: int | None = None
    read_ms: int | None = None


@dataclass(slots=True)
class Delivery:
    """What is known of a delivery; its key is (notification, step)."""

    channel: Channel
    history: History
    event: str | None = None
    user: str | None = None
    address: str | None = None
    scheduled_ms: int | None = None


@dataclass(slots=True)
class EventProgress:
    """What became of an event since it was accepted; times in ms. Status, error and completion are those of its last
    `generation`: a replay begins another, in which what ended earlier counts no more."""

    generation: int = 0
    status: EventStatus = EventStatus.PENDING
    expected: int | None = None
    error: str | None = None
    started_ms: int | None = None
    completed_ms: int | None = None
    cancelled: tuple[int, str, str] | None = None
    """When, why and by whom; of several the earliest."""


@dataclass(frozen=True, slots=True)
class Callback:
    """What a provider told, as it told it. `delivery` and `attempt` are those that it names, `provider_id` and `word`
    the provider's own id of the message and word for what became of it; None where it did not say."""

    provider: str
    id: str
    at_ms: int
    cid: str | None
    raw: Any
    delivery: str | None = None
    attempt: int | None = None
    provider_id: str | None = None
    word: str | None = None


@dataclass(slots=True)
class Gathered:
    """The rows of a batch."""

    accepted: list[Accepted] = field(default_factory=list)
    events: dict[str, EventProgress] = field(default_factory=dict)
    notifications: dict[str, Notification] = field(default_factory=dict)
    deliveries: dict[tuple[str, int], Delivery] = field(default_factory=dict)
    callbacks: dict[tuple[str, str], Callback] = field(default_factory=dict)
    stoppings: dict[UUID, Cancellation] = field(default_factory=dict)


def gather(entries: Iterable[tuple[str, Sequence[Mapping[str, Any]]]]) -> Gathered:
    """The rows that journal entries speak of. Raises Refused."""
    rows = Gathered()
    try:
        for _, facts in entries:
            for fact in facts:
                _GATHERERS[fact["f"]](rows, fact)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise Refused(f"a fact makes no sense ({type(error).__name__})") from error
    return rows


def _accepted(rows: Gathered, fact: Mapping[str, Any]) -> None:
    given = fact["idempotency"]
    rows.accepted.append(
        Accepted(
            Event.model_validate(fact["event"]),
            [Recipient.model_validate(person) for person in fact["recipients"]],
            Idempotency(**given) if given else None,
        )
    )


def _event(rows: Gathered, fact: Mapping[str, Any]) -> None:
    row = _progress(rows, fact)
    status, at_ms = EventStatus(fact["status"]), int(fact["at"])
    if fact["expected"] is not None:
        row.expected = max(row.expected or 0, int(fact["expected"]))
    if status is EventStatus.PROCESSING:
        row.started_ms = _least(row.started_ms, at_ms)
    generation = int(fact.get("generation", 0))
    if generation < row.generation:
        return
    if generation > row.generation:
        row.generation, row.status, row.error, row.completed_ms = generation, EventStatus.PENDING, None, None
    row.status = max(row.status, status, key=list(EventStatus).index)
    if status is not EventStatus.PROCESSING:
        row.completed_ms = _least(row.completed_ms, at_ms)
    if fact["error"] is not None:
        row.error = min(row.error or str(fact["error"]), str(fact["error"]))


def _cancelled(rows: Gathered, fact: Mapping[str, Any]) -> None:
    row = _progress(rows, fact)
    told = (int(fact["at"]), str(fact["reason"]), str(fact["by"]))
    row.cancelled = told if row.cancelled is None else min(row.cancelled, told)


def _routed(rows: Gathered, fact: Mapping[str, Any]) -> None:
    event, at_ms, cid = _id(fact["e"]), int(fact["at"]), fact["cid"]
    courses, notes = parts(fact)
    # Deliveries that began alike share one history, which is never changed in place (incoming.py).
    histories: dict[tuple[str, str | None], History] = {}
    begun = [(listed_ms, list(_beginnings(steps, histories, at_ms))) for listed_ms, steps in courses]
    for told in notes:
        identifier, user = told[0], told[1]
        listed_ms, deliveries = begun[told[2]]
        note = _notification(rows, identifier, user)
        note.event, note.cid, note.routed_ms = event, cid, _least(note.routed_ms, at_ms)
        if listed_ms:
            note.listed_ms = _least(note.listed_ms, listed_ms)
        for step, channel, history, address, scheduled_ms in deliveries:
            row = Delivery(channel, history, event, user, told[address], scheduled_ms)
            place = identifier, step
            known = rows.deliveries.setdefault(place, row)
            if known is not row:
                row.history = merge((known.history, history))
                rows.deliveries[place] = row


def _beginnings(
    steps: Sequence[Sequence[Any]], histories: dict[tuple[str, str | None], History], at_ms: int
) -> Iterator[tuple[int, Channel, History, int, int]]:
    """Of each step of a course: number, channel, history, where its address stands in what is told of a notification
    (the inbox's is the user's id), and when it is scheduled."""
    address = 3
    for step, channel, status, reason, scheduled_ms in steps:
        history = histories.setdefault((status, reason), _begun(status, reason, at_ms))
        in_app = channel == Channel.IN_APP
        yield int(step), _CHANNELS[channel], history, 1 if in_app else address, scheduled_ms
        address += not in_app


def _begun(status: str, reason: str | None, at_ms: int) -> History:
    return {key(1, Status(status)): {"at": at_ms, "reason": reason} if reason else {"at": at_ms}}


def _moved(rows: Gathered, fact: Mapping[str, Any]) -> None:
    for identifier, step, channel, attempt, status, word, at_ms, detail in fact["d"]:
        history = {_place(attempt, status, word): _fact(int(at_ms), detail)}
        _delivery(rows, identifier, step, channel, history)


@lru_cache(maxsize=4_096)
def _place(attempt: int, status: str, word: str | None) -> str:
    return key(int(attempt), Status(status), word)


def _listed(rows: Gathered, fact: Mapping[str, Any]) -> None:
    for identifier, user, listed_ms in fact["n"]:
        note = _notification(rows, identifier, user)
        note.listed_ms = _least(note.listed_ms, int(listed_ms))


def _read(rows: Gathered, fact: Mapping[str, Any]) -> None:
    for identifier, user in fact["n"]:
        note = _notification(rows, identifier, user)
        note.read_ms = _least(note.read_ms, int(fact["at"]))


def _callback(rows: Gathered, fact: Mapping[str, Any]) -> None:
    named = {name: fact.get(name) for name in ("delivery", "attempt", "provider_id", "word")}
    told = Callback(fact["provider"], fact["id"], int(fact["at"]), fact["cid"], fact["raw"], **named)
    rows.callbacks.setdefault((told.provider, told.id), told)


def _stopping(rows: Gathered, fact: Mapping[str, Any]) -> None:
    told = of_fact(fact)
    rows.stoppings.setdefault(told.id, told)


_GATHERERS: Final = {
    "accepted": _accepted,
    "event": _event,
    "cancelled": _cancelled,
    "routed": _routed,
    "moved": _moved,
    "listed": _listed,
    "read": _read,
    "callback": _callback,
    "stopping": _stopping,
}


def _progress(rows: Gathered, fact: Mapping[str, Any]) -> EventProgress:
    return rows.events.setdefault(_id(fact["e"]), EventProgress())


def _notification(rows: Gathered, identifier: str, user: str) -> Notification:
    note = rows.notifications.get(identifier)
    if note is None:
        note = rows.notifications[_id(identifier)] = Notification(user)
    return note


def _delivery(rows: Gathered, notification: str, step: int, channel: str, history: History) -> Delivery:
    row = rows.deliveries.get((notification, step))
    if row is None:
        row = rows.deliveries[_id(notification), int(step)] = Delivery(_CHANNELS[channel], history)
    else:
        row.history = merge((row.history, history))
    return row


def _fact(at_ms: int, detail: Mapping[str, Any]) -> Fact:
    """The fact that `detail` tells: what is not known is left out, and what nobody asked for is not kept."""
    told: Fact = {"at": at_ms}
    for name, value in detail.items():
        if value is None:
            continue
        if name in _TEXTS:
            told[name] = str(value)
        elif name in _NUMBERS:
            told[name] = int(value)
    return told


def _id(text: str) -> str:
    """`text`, if it is a UUID in its usual form. Raises ValueError."""
    if not _is_uuid(text):
        raise ValueError("not a UUID in its usual form")
    return text


def _least(one: int | None, other: int) -> int:
    return other if one is None else min(one, other)
