"""The rows of events: what an accepted one is stored as, by the request that took it or from the journal."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tocsin.domain.event import Event, Recipient

CONTENT: Final = (
    "type",
    "source",
    "title",
    "message",
    "metadata",
    "channels",
    "asked_strategy",
    "strategy",
    "priority",
    "policy",
    "steps",
    "mandatory",
    "sender",
    "cid",
    "recipient_count",
    "unknown_ids",
)
"""The columns of events that hold what Event says, under the same names."""

_JSON: Final = frozenset({"metadata", "channels", "steps", "unknown_ids"})

COLUMNS: Final = ("id", *CONTENT, "recipients", "accepted_at")

ON_CONFLICT: Final = (
    "on conflict (id) do update set "
    + ", ".join(f"{name} = excluded.{name}" for name in COLUMNS[1:])
    + " where events.accepted_at is null"
)
"""An event that is there in full stays; one that only other facts spoke of yet is filled in."""


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A caller's Idempotency-Key: `scope` tells callers apart, `hash` is that of the request's body. `answer` is given
    back when the request is repeated."""

    scope: str
    key: str
    hash: str
    answer: dict[str, Any] | None = None

    def as_fact(self) -> dict[str, Any]:
        """As the journal holds it."""
        return {"scope": self.scope, "key": self.key, "hash": self.hash, "answer": self.answer}


@dataclass(frozen=True, slots=True)
class Accepted:
    """An event to be stored, with the people it is for."""

    event: Event
    recipients: Sequence[Recipient]
    idempotency: Idempotency | None = None


def values_of(row: Accepted) -> tuple[Any, ...]:
    """The values of COLUMNS, the last a time in ms."""
    told = row.event.model_dump(mode="json")
    content = (json.dumps(told[name], ensure_ascii=False) if name in _JSON else told[name] for name in CONTENT)
    people = [person.model_dump(mode="json", exclude_none=True) for person in row.recipients]
    return (told["id"], *content, json.dumps(people, ensure_ascii=False), row.event.accepted_ms)


def event_of(row: dict[str, Any]) -> Event:
    """The event of a row that has COLUMNS, with `accepted_ms` for the time. Postgres's JSON comes parsed."""
    return Event.model_validate({name: row[name] for name in ("id", *CONTENT, "accepted_ms")})


def recipients_of(people: Sequence[dict[str, Any]]) -> list[Recipient]:
    """The recipients of a row."""
    return [Recipient.model_validate(person) for person in people]
