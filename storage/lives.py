"""What Postgres knows of the lives of Redis, of how far each journal is stored, and of who can say what is not."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tocsin.storage.database import cursor, database

_SLOTS: Final = 32
_ROUND: Final = "interval '5 seconds'"
_SILENT_ROUNDS: Final = 4
"""A living process is seen in every round or the next. Of one that was not seen for so many all is stored that it told:
it was dead by the third of them, and the fourth began when all that was told before the third was stored."""
_FORGOTTEN_ROUNDS: Final = 720
"""An hour at least."""

_MARK: Final = """
insert into journal_marks as known (epoch, slot, number) values (%s, %s, %s)
on conflict (epoch, slot) do update set number = excluded.number where known.number < excluded.number
"""

_BEAT: Final = f"""
with stored as (
  select now() - %s * interval '1 millisecond' as up_to
), beginning as (
  update witness_rounds set number = number + 1, began_at = now() from stored
  where began_at <= stored.up_to and began_at <= now() - {_ROUND} returning number
)
insert into witnesses as known (name, drained_at, round)
select %s, up_to, coalesce((select number from beginning), (select number from witness_rounds)) from stored
on conflict (name) do update set seen_at = now(), drained_at = excluded.drained_at, round = excluded.round
"""  # noqa: S608  # made of constants

_SEEN: Final = """
insert into witnesses as known (name, round) select %s, number from witness_rounds
on conflict (name) do update set seen_at = now(), round = excluded.round
"""

_TESTIFY: Final = """
insert into witnesses as known (name, testified, complete, round) select %s, %s, %s, number from witness_rounds
on conflict (name) do update
set seen_at = now(), testified = excluded.testified, complete = excluded.complete, round = excluded.round
"""

_HEARD: Final = f"""
select count(*) filter (where testified is distinct from %s), coalesce(bool_and(complete), true),
  coalesce((select (extract(epoch from max(drained_at)) * 1000)::bigint from witnesses), 0)
from witnesses cross join witness_rounds as latest
where testified = %s or round > latest.number - {_SILENT_ROUNDS}
"""  # noqa: S608  # made of constants

# Whoever beats is in the latest round, and stays.
_FORGET: Final = f"""
delete from witnesses where round < (select number from witness_rounds) - {_FORGOTTEN_ROUNDS}
"""  # noqa: S608  # made of constants


@dataclass(frozen=True, slots=True)
class Known:
    """The newest life ('' when there was none) and the number of the last fact of a life that is stored."""

    newest: str
    mark: int


@dataclass(frozen=True, slots=True)
class Heard:
    """How many witnesses have not testified, and whether those that have could tell everything; and up to when all that
    was told is stored, in ms."""

    missing: int
    complete: bool
    stored_ms: int

    @property
    def exact(self) -> bool:
        """Whether nothing that was told is missing."""
        return not self.missing and self.complete


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A life that was rebuilt. `cause` is emptied or rolled_back, `counts` what was put back."""

    epoch: str
    lost_ms: int
    cause: str
    exact: bool
    took_ms: int
    counts: Mapping[str, int]


def mark(query: Any, epoch: str, number: int) -> None:
    """Notes in the transaction of `query` that a fact is stored."""
    query.execute(_MARK, (epoch, random.randrange(_SLOTS), number))  # noqa: S311  # no secret


def known(epoch: str) -> Known:
    """What Postgres knows: its newest life, and how far the journal of `epoch` is stored."""
    with cursor() as query:
        query.execute(
            "select coalesce((select epoch from lives order by number desc limit 1), ''),"
            " coalesce((select max(number) from journal_marks where epoch = %s), 0)",
            (epoch,),
        )
        return Known(*query.fetchone())


def is_new() -> bool:
    """Whether nothing was ever accepted, and no life was known."""
    with cursor() as query:
        query.execute("select not exists (select from lives) and not exists (select from events)")
        return bool(query.fetchone()[0])


def begin_first(epoch: str) -> bool:
    """Stores the first life of all; False when another did."""
    with database.atomic(), cursor() as query:
        query.execute("lock table lives in share row exclusive mode")
        query.execute(
            "insert into lives (epoch, cause, exact, took_ms) select %s, 'first', true, 0"
            " where not exists (select from lives)",
            (epoch,),
        )
        return bool(query.rowcount)


def beat(name: str, drained_age_ms: int, epoch: str) -> Known:
    """Says that a process lives, and that everything older than `drained_age_ms` is stored."""
    with cursor() as query:
        query.execute(_BEAT, (drained_age_ms, name))
    return known(epoch)


def seen(name: str) -> None:
    """Says that a process lives, which cannot say now up to when everything is stored: Redis is away, or lost."""
    with cursor() as query:
        query.execute(_SEEN, (name,))


def testify(name: str, coming: str, *, complete: bool) -> None:
    """Says that a process has told again what may not be stored, for the life to come."""
    with cursor() as query:
        query.execute(_TESTIFY, (name, coming, complete))


def leave(name: str) -> None:
    """Takes a process off the list that stops and has nothing to tell."""
    with cursor() as query:
        query.execute("delete from witnesses where name = %s", (name,))


def heard(coming: str) -> Heard:
    """Who has testified for the life to come."""
    with cursor() as query:
        query.execute(_HEARD, (coming, coming))
        return Heard(*query.fetchone())


def store_rebuilt(life: Rebuilt) -> None:
    """Stores a life, before it begins, and forgets what only concerned those before."""
    with cursor() as query:
        query.execute(
            "insert into lives (epoch, lost_at, cause, exact, took_ms, counts)"
            " values (%s, tocsin_time(%s), %s, %s, %s, %s)",
            (life.epoch, life.lost_ms, life.cause, life.exact, life.took_ms, json.dumps(life.counts)),
        )
        query.execute("delete from journal_marks where epoch <> %s", (life.epoch,))


def forget_silent() -> None:
    """Forgets processes that ended without leaving, long before the moment up to which everything is stored: whatever
    they told is."""
    with cursor() as query:
        query.execute(_FORGET)


def withdraw(epoch: str) -> None:
    """Removes a life that did not begin, for Redis was lost again."""
    with cursor() as query:
        query.execute("delete from lives where epoch = %s", (epoch,))


def was(epoch: str) -> bool:
    """Whether there was such a life."""
    with cursor() as query:
        query.execute("select exists (select from lives where epoch = %s)", (epoch,))
        return bool(query.fetchone()[0])
