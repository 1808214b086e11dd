"""Events whose fan-out ended, each counted once against the recipients it should have. Run by Postgres.call."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from tocsin.storage.database import cursor

_PAGE: Final = """
select id, (extract(epoch from completed_at) * 1000)::bigint, expected from events
where status = 'COMPLETED' and (completed_at, id) > (tocsin_time(%(after)s), %(id)s::uuid)
  and completed_at <= tocsin_time(%(until)s) and expected is not null and accepted_at is not null
order by completed_at, id limit %(limit)s
"""
_MADE: Final = """
select wanted.id, counted.made from unnest(%s::uuid[]) as wanted (id)
cross join lateral (
  select count(*) as made from notifications note
  where note.id >= tocsin_first_id(wanted.id) and note.id <= tocsin_last_id(wanted.id)
    and note.event_id = wanted.id and note.routed_at is not null
) as counted
"""


@dataclass(frozen=True, slots=True)
class Completed:
    """An event, when its fan-out ended (ms), and how many notifications it should have."""

    event: UUID
    completed_ms: int
    expected: int


def completed(after: tuple[int, str] | None, until_ms: int, since_ms: int, limit: int) -> list[Completed]:
    """Up to `limit` events whose fan-out ended after (ms, id), or else since `since_ms`, and not after `until_ms`."""
    after_ms, identifier = after or (since_ms, str(UUID(int=0)))
    with cursor() as query:
        query.execute(_PAGE, {"after": after_ms, "id": identifier, "until": until_ms, "limit": limit})
        return [Completed(*row) for row in query.fetchall()]


def made(events: Sequence[UUID]) -> dict[UUID, int]:
    """How many notifications of events are there, by the rows themselves."""
    with cursor() as query:
        query.execute(_MADE, (list(map(str, events)),))
        return dict(query.fetchall())
