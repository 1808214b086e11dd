"""A person's inbox as it is shown: the list in Redis of what Postgres does not have yet, then the table (design §5.9).

The list is looked at first. An entry that is stored and trimmed meanwhile is then found in the table, and one that is
in both counts once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from tocsin.domain.errors import PostgresAway, RedisAway
from tocsin.domain.event import Event
from tocsin.storage import queries
from tocsin.storage.inbox import InboxLists, Listed
from tocsin.storage.inbox_queries import InboxRow
from tocsin.storage.postgres import Postgres

Place = tuple[int, UUID]
"""Where an entry stands: when it was listed, in ms, and its id."""

_MOST_NEWER = 1_000


@dataclass(frozen=True, slots=True)
class InboxPage:
    """Some entries, the newest first, and the place after which the next page begins; None on the last one."""

    rows: tuple[InboxRow, ...]
    next: Place | None


def place_of(row: InboxRow) -> Place:
    """Where a row stands in its inbox."""
    return row.listed_ms, row.id


class InboxView:
    """Both sources as one. Raises PostgresAway where the list alone does not tell enough."""

    def __init__(self, lists: InboxLists, postgres: Postgres) -> None:
        self._lists = lists
        self._postgres = postgres

    async def page(self, user: str, limit: int, before: Place | None = None, *, unread_only: bool = False) -> InboxPage:
        """Up to `limit` entries. While Postgres is away the first page is what the list has."""
        listed = await self._listed(user)
        try:
            stored = await self._postgres.call(queries.inbox, user, limit + 1, before, unread_only=unread_only)
        except PostgresAway:
            if before is not None or not listed:
                raise
            stored = []
        wanted = [each for each in listed if before is None or (each.listed_ms, each.id) < before]
        rows = await self._merged(wanted, stored)
        page = rows[:limit]
        more = place_of(page[-1]) if len(rows) > limit else None
        return InboxPage(tuple(row for row in page if not (unread_only and row.read_ms)), more)

    async def newer(self, user: str, after: Place) -> list[InboxRow]:
        """The entries after a place, the oldest first; at most the newest thousand."""
        listed = [each for each in await self._listed(user) if (each.listed_ms, each.id) > after]
        stored: list[InboxRow] = []
        before: Place | None = None
        size = 50
        while len(stored) < _MOST_NEWER:
            page = await self._stored(user, size, before)
            fresh = [row for row in page if place_of(row) > after]
            stored += fresh
            if len(fresh) < size:
                break
            before, size = place_of(fresh[-1]), 200
        return (await self._merged(listed, stored))[::-1]

    async def newest(self, user: str) -> Place:
        """The place of the newest entry; that of nothing in an empty inbox."""
        rows = (await self.page(user, 1)).rows
        return place_of(rows[0]) if rows else (0, UUID(int=0))

    async def unread_count(self, user: str) -> int:
        """How many entries are unread."""
        listed = await self._listed(user)
        names = [each.id for each in listed]
        # What is listed is counted here alone: it may be stored while Postgres is asked.
        stored = await self._postgres.call(queries.unread_count, user, names)
        known = await self._postgres.call(queries.read_times, user, names) if names else {}
        return stored + sum(1 for each in listed if each.read_ms is None and known.get(each.id) is None)

    async def unread_ids(self, user: str, limit: int) -> list[UUID]:
        """Up to `limit` entries that are unread, or about so many."""
        listed = [each.id for each in await self._listed(user) if each.read_ms is None]
        stored = await self._postgres.call(queries.unread_ids, user, limit)
        return list(dict.fromkeys([*listed, *stored]))[:limit]

    async def _listed(self, user: str) -> list[Listed]:
        try:
            return await self._lists.entries(user)
        except RedisAway:
            return []

    async def _stored(self, user: str, limit: int, before: Place | None) -> list[InboxRow]:
        try:
            return await self._postgres.call(queries.inbox, user, limit, before)
        except PostgresAway:
            return []

    async def _merged(self, listed: Sequence[Listed], stored: Iterable[InboxRow]) -> list[InboxRow]:
        """Each entry once, the newest first, read if either source says so."""
        rows = {row.id: row for row in stored}
        new = [each for each in listed if each.id not in rows]
        contents = await self._contents({each.event for each in new}) if new else {}
        rows |= {each.id: _row(each, contents[each.event]) for each in new if each.event in contents}
        for each in listed:
            if each.read_ms is not None and each.id in rows and rows[each.id].read_ms is None:
                rows[each.id] = replace(rows[each.id], read_ms=each.read_ms)
        return sorted(rows.values(), key=place_of, reverse=True)

    async def _contents(self, events: Iterable[UUID]) -> dict[UUID, Event]:
        wanted = list(events)
        try:
            texts = await self._lists.contents(wanted)
        except RedisAway:
            texts = {}
        found = {event: Event.model_validate_json(text) for event, text in texts.items()}
        missing = [event for event in wanted if event not in found]
        if missing:
            try:
                found |= await self._postgres.call(queries.contents, missing)
            except PostgresAway:
                return found
        return found


def _row(listed: Listed, event: Event) -> InboxRow:
    return InboxRow(
        id=listed.id,
        event_id=listed.event,
        type=event.type,
        title=event.title,
        message=event.message,
        priority=event.priority,
        metadata=event.metadata,
        listed_ms=listed.listed_ms,
        read_ms=listed.read_ms,
    )
