"""Work that is tried again when it met another transaction."""

import random
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import psycopg2
from peewee import PeeweeException

from tocsin.storage.database import database, is_conflict, is_held

_T = TypeVar("_T")
_TRIES: Final = 6
_PAUSE_S: Final = 0.05
LOCKED_MS: Final = 20_000
"""For how long what holds rows locked may touch Redis: less than Postgres leaves an idle transaction its locks."""


def tried_again(work: Callable[[], _T]) -> _T:
    """What `work` answers; it is run again after a deadlock or a serialization failure."""
    for turn in range(1, _TRIES):
        try:
            return work()
        except (PeeweeException, psycopg2.Error) as error:
            if not is_conflict(error):
                raise
        # Two that met once meet again if both start at once.
        time.sleep(random.uniform(0, _PAUSE_S * turn))  # noqa: S311  # no secret
    return work()


def patiently(work: Callable[[], _T], pauses_s: Sequence[float]) -> _T:
    """What `work` answers; it is run again after each pause where others hold what it has to have alone."""
    for pause_s in pauses_s:
        try:
            return work()
        except (PeeweeException, psycopg2.Error) as error:
            if not is_conflict(error) and not is_held(error):
                raise
        time.sleep(pause_s)
    return work()


def in_transaction(work: Callable[[], _T]) -> _T:
    """What `work` answers, committed; tried again as a whole."""

    def whole() -> _T:
        with database.atomic():
            return work()

    return tried_again(whole)
