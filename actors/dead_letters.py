"""Counts dead letters and what is held by the clock, so that looking at the figures costs Postgres nothing."""

from typing import Final

from tocsin.storage import dead_letters
from tocsin.storage.dead_letters import LetterFilter
from tocsin.storage.store import Store

EVERY_S: Final = 60
_SHARE_OF_PERIOD: Final = 0.9
_MOST: Final = 100_000


async def count_dead_letters(store: Store) -> None:
    """Counts them up to 100,000, for all processes: of those whose clocks strike within one period the first one does
    it. Raises RedisAway and PostgresAway."""
    if await store.once("dead_letters", int(EVERY_S * 1000 * _SHARE_OF_PERIOD)):
        dead = await store.postgres.call(dead_letters.count, LetterFilter(), _MOST)
        held = await store.postgres.call(dead_letters.held_count, _MOST)
        await store.keep_counts(dead_letters=dead, held=held)
