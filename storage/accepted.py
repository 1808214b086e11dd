"""Accepted events into Postgres, many in one commit, each with its idempotency key (design §5.1, R9)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg2
from peewee import PeeweeException

from tocsin.domain.errors import KeyMismatch, TocsinError
from tocsin.storage.accepted_rows import COLUMNS, GIVEN, ON_CONFLICT, VALUES, Accepted, Idempotency, as_json
from tocsin.storage.database import Refused, cursor, judged
from tocsin.storage.transactions import tried_again

__all__ = ["Accepted", "Idempotency", "Stored", "store_accepted"]

# One statement, so that without a transaction of its own it takes one round trip. A key that is there, and younger than
# a day, keeps its event from being stored.
_STORE: Final = f"""
with given as materialized (select * from {GIVEN}),
claimed as (
  insert into idempotency (scope, key, hash, event_id, answer)
  select scope, key, hash, id, answer from given where scope is not null order by scope, key
  on conflict (scope, key) do update set
    hash = excluded.hash, event_id = excluded.event_id, answer = excluded.answer, created_at = now()
    where idempotency.created_at < now() - interval '1 day'
  returning event_id
),
stored as (
  insert into events ({COLUMNS})
  select {VALUES} from given where scope is null or id in (select event_id from claimed) order by id
  {ON_CONFLICT}
)
select id from given where scope is not null and id not in (select event_id from claimed)
"""  # noqa: S608  # made of constants


@dataclass(frozen=True, slots=True)
class Stored:
    """That an event is stored; `replay` is the answer that its idempotency key was given before, in which case nothing
    was stored now. It has the `id` of the event stored then."""

    replay: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class _Earlier:
    """What an idempotency key stands for."""

    hash: str
    event: UUID
    answer: dict[str, Any] | None


def store_accepted(batch: Sequence[Accepted]) -> list[Stored | TocsinError]:
    """Stores events in one commit. Answers for each, in order, Stored, or the error that concerns it alone: Refused for
    data that Postgres will not have, KeyMismatch for a key that was used for another request."""
    try:
        return _store(batch)
    except (psycopg2.Error, PeeweeException, ValueError) as error:
        refusal = _refusal(error)
        if refusal is None:
            raise
        if len(batch) == 1:
            return [refusal]
    middle = len(batch) // 2
    return store_accepted(batch[:middle]) + store_accepted(batch[middle:])


def _store(batch: Sequence[Accepted]) -> list[Stored | TocsinError]:
    firsts = {_place(row): row for row in reversed(batch)}
    given = as_json(firsts.values())
    with cursor() as query:
        tried_again(lambda: query.execute(_STORE, (given,)))
        earlier = _earlier(query, batch) if query.rowcount or len(firsts) < len(batch) else {}
    return [_answer(row, earlier) for row in batch]


def _place(row: Accepted) -> tuple[str, str]:
    """What there can be only one of: the key, where there is one."""
    return (row.idempotency.scope, row.idempotency.key) if row.idempotency else ("", str(row.event.id))


def _earlier(query: Any, batch: Sequence[Accepted]) -> dict[tuple[str, str], _Earlier]:
    places = [_place(row) for row in batch if row.idempotency]
    query.execute(
        "select scope, key, hash, event_id::text, answer from idempotency where (scope, key) in %s", (tuple(places),)
    )
    return {
        (scope, key): _Earlier(hashed, UUID(event), answer) for scope, key, hashed, event, answer in query.fetchall()
    }


def _answer(row: Accepted, earlier: Mapping[tuple[str, str], _Earlier]) -> Stored | TocsinError:
    found = earlier.get(_place(row)) if row.idempotency else None
    if found is None or row.idempotency is None or found.event == row.event.id:
        return Stored()
    if found.hash != row.idempotency.hash:
        return KeyMismatch("the idempotency key was used for another request")
    return Stored({"id": str(found.event), **(found.answer or {})})


def _refusal(error: Exception) -> TocsinError | None:
    """The refusal that an error is. Text that no database takes, such as NUL, is refused by psycopg2 itself."""
    if isinstance(error, ValueError):
        return Refused("the data holds a character that cannot be stored")
    judgement = judged(error)
    return judgement if isinstance(judgement, Refused) else None
