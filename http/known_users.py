"""Which of the user ids in a request are known, without asking Postgres again for those it just knew."""

import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from tocsin.domain.errors import PostgresAway
from tocsin.storage import users
from tocsin.storage.store import Store

_FRESH_S: Final = 30.0
_MOST: Final = 50_000


class KnownUsers:
    """Remembers for half a minute who is known; who is not is looked up each time, so a new user counts at once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._until: OrderedDict[str, float] = OrderedDict()

    async def unknown(self, asked: Sequence[str]) -> set[str]:
        """Those of `asked` that are not known. Nobody is while Postgres is away: the actors then find out."""
        now_s = time.monotonic()
        doubtful = [user for user in asked if self._until.get(user, 0.0) < now_s]
        if not doubtful:
            return set()
        try:
            found: set[str] = await self._store.postgres.call(users.known, doubtful)
        except PostgresAway:
            return set()
        self._remember(found, now_s + _FRESH_S)
        return set(doubtful) - found

    def forget(self, user: str) -> None:
        """Looks `user` up anew, after a change."""
        self._until.pop(user, None)

    def _remember(self, found: set[str], until_s: float) -> None:
        for user in found:
            self._until[user] = until_s
            self._until.move_to_end(user)
        while len(self._until) > _MOST:
            self._until.popitem(last=False)
