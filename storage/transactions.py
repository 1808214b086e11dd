"""Work that is tried again when it met another transaction."""

from collections.abc import Callable
from typing import Final, TypeVar

import psycopg2
from peewee import PeeweeException

from tocsin.storage.database import database, is_conflict

_T = TypeVar("_T")
_TRIES: Final = 5


def tried_again(work: Callable[[], _T]) -> _T:
    """What `work` answers; it is run again after a deadlock or a serialization failure."""
    for _ in range(_TRIES - 1):
        try:
            return work()
        except (PeeweeException, psycopg2.Error) as error:
            if not is_conflict(error):
                raise
    return work()


def in_transaction(work: Callable[[], _T]) -> _T:
    """What `work` answers, committed; tried again as a whole."""

    def whole() -> _T:
        with database.atomic():
            return work()

    return tried_again(whole)
