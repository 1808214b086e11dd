"""Topics: named groups, and who belongs to them as what (F1, F2). Run by Postgres.call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tocsin.domain.errors import NotFound
from tocsin.storage.database import cursor
from tocsin.storage.transactions import in_transaction

_COLUMNS: Final = "key, kind, name, (extract(epoch from created_at) * 1000)::bigint"

_PUT: Final = f"""
insert into topics as known (key, kind, name) values (%s, %s, %s)
on conflict (key) do update set kind = excluded.kind, name = excluded.name, updated_at = now()
returning {_COLUMNS}
"""  # noqa: S608  # made of constants

_LIST: Final = f"""
select {_COLUMNS} from topics where key > %(after)s and (%(kind)s::text is null or kind = %(kind)s)
order by key limit %(limit)s
"""  # noqa: S608  # made of constants

# The rows are locked in the order of the key by whoever writes several, so that two never wait for each other in a
# circle.
_ADD: Final = """
insert into members as known (topic, user_id, roles)
select topic, user_id, string_to_array(roles, ',')
from unnest(%(topics)s::text[], %(users)s::text[], %(roles)s::text[]) as given (topic, user_id, roles)
order by topic collate "C", user_id collate "C"
on conflict (topic, user_id) do update set roles = excluded.roles where known.roles <> excluded.roles
returning (xmax = 0)
"""

_MAKE: Final = """
insert into topics (key, kind) select key, kind from unnest(%s::text[], %s::text[]) as given (key, kind)
order by key collate "C" on conflict do nothing returning key
"""

_STRANGERS: Final = """
select given.id from unnest(%s::text[]) as given (id) where not exists (select from users where users.id = given.id)
"""

_MEMBERS: Final = """
select member.user_id, member.roles, exists (select from users where users.id = member.user_id)
from members member
where topic = %(topic)s and user_id > %(after)s and (%(role)s::text is null or %(role)s = any(roles))
order by user_id limit %(limit)s
"""


@dataclass(frozen=True, slots=True)
class Topic:
    """A named group."""

    key: str
    kind: str
    name: str | None
    created_ms: int


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody who belongs to a topic; `known` where there is such a user."""

    user: str
    roles: tuple[str, ...]
    known: bool


@dataclass(frozen=True, slots=True)
class Joined:
    """What became of members who were given: how many are new, how many got other roles, how many were removed because
    they were not given; which are no known users; and how many topics were made for them."""

    added: int
    changed: int
    removed: int
    unknown: Sequence[str]
    made: int = 0


Memberships = Mapping[tuple[str, str], Sequence[str]]
"""The roles by topic and user."""


def known(topics: Sequence[str]) -> set[str]:
    """Those of `topics` that there are."""
    with cursor() as query:
        query.execute("select key from topics where key = any(%s)", (list(topics),))
        return {key for (key,) in query.fetchall()}


def put_topic(key: str, kind: str, name: str | None) -> Topic:
    """Makes a topic, or gives it another kind and name; its members stay."""
    with cursor() as query:
        query.execute(_PUT, (key, kind, name))
        return Topic(*query.fetchone())


def get_topic(key: str) -> tuple[Topic, int] | None:
    """A topic and how many members it has."""
    with cursor() as query:
        query.execute(f"select {_COLUMNS} from topics where key = %s", (key,))  # noqa: S608  # made of constants
        row = query.fetchone()
        if row is None:
            return None
        query.execute("select count(*) from members where topic = %s", (key,))
        return Topic(*row), int(query.fetchone()[0])


def list_topics(limit: int, after: str = "", kind: str | None = None) -> list[Topic]:
    """Up to `limit` topics by key, those after `after`."""
    with cursor() as query:
        query.execute(_LIST, {"limit": limit, "after": after, "kind": kind})
        return [Topic(*row) for row in query.fetchall()]


def delete_topic(key: str) -> bool:
    """Removes a topic with its members; False when there was none."""
    with cursor() as query:
        query.execute("delete from topics where key = %s", (key,))
        return bool(query.rowcount)


def list_members(topic: str, limit: int, after: str = "", role: str | None = None) -> list[Member]:
    """Up to `limit` members by user id, those after `after`; with `role` those who have it. Raises NotFound."""
    with cursor() as query:
        _must_exist(query, topic)
        query.execute(_MEMBERS, {"topic": topic, "limit": limit, "after": after, "role": role})
        return [Member(user, tuple(roles), is_known) for user, roles, is_known in query.fetchall()]


def add_members(topic: str, members: Mapping[str, Sequence[str]], *, replace: bool = False) -> Joined:
    """Makes users members, each with these roles in place of what they had; with `replace` nobody else is one then.
    Raises NotFound for a topic that there is not."""

    def add() -> Joined:
        if not _held([topic]):
            raise NotFound("there is no such topic")
        removed = _remove_others(topic, list(members)) if replace else 0
        return _add({(topic, user): roles for user, roles in members.items()}, removed)

    return in_transaction(add)


def add_memberships(given: Memberships, kinds: Mapping[str, str]) -> tuple[Joined, set[str]]:
    """Makes users members of any topics; of `kinds` those that there are not are made. Answers also the topics that
    there are not, whose members are left out."""

    def add() -> tuple[Joined, set[str]]:
        made = _make(kinds) if kinds else 0
        wanted = {topic for topic, _ in given}
        there = _held(sorted(wanted))
        kept = {place: roles for place, roles in given.items() if place[0] in there}
        return _add(kept, 0, made), wanted - there

    return in_transaction(add)


def remove_members(topic: str, users: Sequence[str]) -> int:
    """Ends memberships; answers how many there were. Raises NotFound for a topic that there is not."""
    with cursor() as query:
        _must_exist(query, topic)
        query.execute("delete from members where topic = %s and user_id = any(%s)", (topic, list(users)))
        return int(query.rowcount)


def topics_of(user: str, limit: int) -> list[tuple[str, tuple[str, ...]]]:
    """The topics that a user belongs to, by key, each with the roles."""
    with cursor() as query:
        query.execute("select topic, roles from members where user_id = %s order by topic limit %s", (user, limit))
        return [(topic, tuple(roles)) for topic, roles in query.fetchall()]


def _add(given: Memberships, removed: int, made: int = 0) -> Joined:
    users = sorted({user for _, user in given})
    values = {
        "topics": [topic for topic, _ in given],
        "users": [user for _, user in given],
        "roles": [",".join(sorted(roles)) for roles in given.values()],
    }
    with cursor() as query:
        query.execute(_ADD, values)
        fresh = [is_new for (is_new,) in query.fetchall()]
        query.execute(_STRANGERS, (users,))
        strangers = [user for (user,) in query.fetchall()]
    return Joined(fresh.count(True), fresh.count(False), removed, strangers, made)


def _held(topics: Sequence[str]) -> set[str]:
    """Those of `topics` that there are; until the end of the transaction they are not removed."""
    with cursor() as query:
        query.execute("select key from topics where key = any(%s) order by key for key share", (list(topics),))
        return {key for (key,) in query.fetchall()}


def _make(kinds: Mapping[str, str]) -> int:
    with cursor() as query:
        query.execute(_MAKE, (list(kinds), list(kinds.values())))
        return int(query.rowcount)


def _remove_others(topic: str, users: Sequence[str]) -> int:
    with cursor() as query:
        query.execute("delete from members where topic = %s and user_id <> all(%s)", (topic, list(users)))
        return int(query.rowcount)


def _must_exist(query: Any, topic: str) -> None:
    query.execute("select from topics where key = %s", (topic,))
    if not query.rowcount:
        raise NotFound("there is no such topic")
