"""Which user ids of a request are known, without asking Postgres again for those it just knew."""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from tocsin.domain.errors import PostgresAway
from tocsin.storage.store import Store

_FRESH_S: Final = 30.0
_MOST: Final = 50_000


class Known:
    """Remembers for half a minute what is known; what is not is looked up each time, so a new user counts at once."""

    def __init__(self, store: Store, known: Callable[[Sequence[str]], set[str]]) -> None:
        self._store = store
        self._known = known
        self._until: OrderedDict[str, float] = OrderedDict()

    async def unknown(self, asked: Sequence[str]) -> set[str]:
        """Those of `asked` that are not known. None is while Postgres is away: the actors then find out."""
        now_s = time.monotonic()
        doubtful = [user for user in asked if self._until.get(user, 0.0) < now_s]
        if not doubtful:
            return set()
        try:
            found: set[str] = await self._store.postgres.call(self._known, doubtful)
        except PostgresAway:
            return set()
        self._remember(found, now_s + _FRESH_S)
        return set(doubtful) - found

    def forget(self, name: str) -> None:
        """Looks `name` up anew, after a change."""
        self._until.pop(name, None)

    def _remember(self, found: set[str], until_s: float) -> None:
        for user in found:
            self._until[user] = until_s
            self._until.move_to_end(user)
        while len(self._until) > _MOST:
            self._until.popitem(last=False)
