"""A person's inbox: first the list in Redis of what Postgres does not have yet, then the table (design §5.9)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from redis.exceptions import ResponseError

from tocsin.storage.keys import Keys
from tocsin.storage.redis import told
from tocsin.storage.scripts import MOST_ITEMS, Scripts

_MOST_CACHED = 1_000


@dataclass(frozen=True, slots=True)
class Listed:
    """An inbox entry that Postgres may not have yet."""

    id: UUID
    event: UUID
    listed_ms: int
    read_ms: int | None


def entry(notification: UUID | str, event: UUID | str, listed_ms: int) -> str:
    """The exact bytes of an entry, as lua/lib.lua `inbox_entry` writes them."""
    return f'{{"id":"{notification}","event":"{event}","listedAt":{listed_ms},"cachedAt":{listed_ms}}}'


class InboxLists:
    """The lists `notifications:<user>` and what is published when one grows."""

    def __init__(self, client: Any, scripts: Scripts, keys: Keys) -> None:
        self._client = client
        self._scripts = scripts
        self._keys = keys

    async def entries(self, user: str) -> list[Listed]:
        """The cached entries of a user, newest first, with what is known of their reading."""
        with told():
            texts = await self._texts(user)
            found = [json.loads(text) for text in texts]
            marks = await self._client.mget([self._keys.read(each["id"]) for each in found]) if found else []
        return [
            Listed(UUID(each["id"]), UUID(each["event"]), each["listedAt"], int(mark.split(":")[0]) if mark else None)
            for each, mark in zip(found, marks, strict=True)
        ]

    async def _texts(self, user: str) -> list[str]:
        try:
            texts: list[str] = await self._client.lrange(self._keys.inbox(user), 0, _MOST_CACHED - 1)
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            return []  # somebody else's: the lists' names are shared (lua/lib.lua `on_list`)
        return texts

    async def contents(self, events: Sequence[UUID]) -> dict[UUID, str]:
        """The content of events, as JSON, where Redis has it."""
        with told():
            async with self._client.pipeline(transaction=False) as pipeline:
                for event in events:
                    pipeline.hget(self._keys.event(event), "content")
                found = await pipeline.execute()
        return {event: text for event, text in zip(events, found, strict=True) if text}

    async def trim(self, stored: Sequence[tuple[str, UUID | str, UUID | str, int]]) -> None:
        """Removes entries that Postgres has: (user, notification, event, listed_ms) each."""
        for first in range(0, len(stored), MOST_ITEMS):
            arguments: list[str] = []
            for user, notification, event, listed_ms in stored[first : first + MOST_ITEMS]:
                arguments += [self._keys.inbox(user), entry(notification, event, listed_ms)]
            await self._scripts.run("trim", *arguments)

    async def publish(self, listed: Sequence[tuple[str, UUID | str, int]]) -> None:
        """Wakes the open pages of users whose entries were stored with the cache switched off."""
        with told():
            async with self._client.pipeline(transaction=False) as pipeline:
                for user, notification, listed_ms in listed:
                    pipeline.publish(self._keys.published(user), f"{listed_ms}:{notification}")
                await pipeline.execute()

    async def tell_of_read(self, user: str) -> None:
        """Wakes the open pages of a user who read something, here or elsewhere."""
        with told():
            await self._client.publish(self._keys.published(user), "read")
