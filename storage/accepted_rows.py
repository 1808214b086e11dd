"""The rows of events: what an accepted one is stored as, by the request that took it or from the journal.

Many events go to Postgres as one JSON text: it takes that in three times as fast as the same values one by one.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import TypeAdapter

from tocsin.domain.event import Event, Recipient

CONTENT: Final = (
    "generation",
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
    "audience",
    "event_key",
    "signature",
)
"""The columns of events that hold what Event says, under the same names."""

_TYPES: Final = {
    "id": "uuid",
    "mandatory": "boolean",
    "recipient_count": "integer",
    "generation": "integer",
    "accepted_ms": "bigint",
} | (dict.fromkeys(("metadata", "channels", "steps", "unknown_ids", "audience", "recipients", "answer"), "jsonb"))
_NAMES: Final = ("id", *CONTENT, "recipients", "accepted_ms", "scope", "key", "hash", "answer")

_TYPED: Final = ", ".join(f"{name} {_TYPES.get(name, 'text')}" for name in _NAMES)

GIVEN: Final = f"json_to_recordset(%s) as given ({_TYPED})"
"""What `as_json` wrote, as rows."""

COLUMNS: Final = ", ".join(("id", *CONTENT, "recipients", "accepted_at"))
VALUES: Final = ", ".join(("id", *CONTENT, "recipients", "tocsin_time(accepted_ms)"))
"""The values of COLUMNS in a row of GIVEN."""

ON_CONFLICT: Final = (
    "on conflict (id) do update set "
    + ", ".join(f"{name} = excluded.{name}" for name in (*CONTENT, "recipients", "accepted_at"))
    + " where events.accepted_at is null"
)
"""An event that is there in full stays; one that only other facts spoke of yet is filled in."""

_PEOPLE: Final = TypeAdapter(list[Recipient])


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


def as_json(rows: Iterable[Accepted]) -> str:
    """Rows for GIVEN. Raises ValueError for what is no text."""
    return f"[{','.join(map(_as_json, rows))}]"


def event_of(row: dict[str, Any]) -> Event:
    """The event of a row that has CONTENT and `accepted_ms`. Postgres's JSON comes parsed."""
    return Event.model_validate({name: row[name] for name in ("id", *CONTENT, "accepted_ms")})


def recipients_of(people: Sequence[dict[str, Any]]) -> list[Recipient]:
    """The recipients of a row."""
    return [Recipient.model_validate(person) for person in people]


def _as_json(row: Accepted) -> str:
    event = row.event.model_dump_json()
    people = _PEOPLE.dump_json(list(row.recipients), exclude_none=True).decode()
    key = f",{json.dumps(row.idempotency.as_fact())[1:-1]}" if row.idempotency else ""
    return f'{event[:-1]},"recipients":{people}{key}}}'
