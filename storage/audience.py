"""The people of an audience, a page at a time in the order of their ids (F1, F3). Run by Postgres.call.

A page is the union of the first people of each part behind the last id; so nobody comes twice, whoever joins or leaves
meanwhile, and no page costs more than its size times the parts. A filter is tried up to the end of a window; where that
lies is looked for once for all pages of a window.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from tocsin.domain import ids
from tocsin.domain.audience import Audience, TopicChoice
from tocsin.domain.filters import All, Check, Filter, Not, Some
from tocsin.storage.database import cursor
from tocsin.storage.found import ENTRY
from tocsin.storage.id_ranges import of_event
from tocsin.storage.transactions import in_transaction

# Postgres has to know how far people may have been routed before anybody is: a row that is not there yet is one whose
# event only Redis has. Persisters do not touch it while pages are read, so that neither waits for the other.
_REACH: Final = """
insert into events as known (id, horizon, matched) values (%(event)s, %(reached)s, %(matched)s)
on conflict (id) do update set
  horizon = greatest(known.horizon, excluded.horizon), matched = greatest(known.matched, excluded.matched)
"""

_WINDOW: Final = "select id from users where id > %(after)s order by id offset %(window)s limit 1"
WINDOW: Final = 50_000
"""How many users a filter is tried on in one page, so that one that hardly anybody fits is no endless statement."""
_BEHIND_ALL: Final = "~"
"""Comes after every user id."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose people are asked for: those of the audience of an event of this type."""

    event: UUID
    type: str
    audience: Audience


@dataclass(frozen=True, slots=True)
class People:
    """A page of an audience: (user id, entry) of each, the id up to which it was looked for them, whether nobody comes
    after that, and where the window ends."""

    found: Sequence[tuple[str, str]]
    reached: str
    last: bool
    window: str = ""


@dataclass(frozen=True, slots=True)
class Before:
    """What is known of people of an event from before a loss or a replay: those who were routed, what is known of the
    deliveries of the others, (notification, step), and when they read it (user and ms, by notification)."""

    routed: frozenset[str]
    known: Sequence[tuple[UUID, int]]
    read_ms: dict[UUID, tuple[str, int]]


def page(wanted: Wanted, after: str, limit: int, matched: int, window: str = "") -> People:
    """Up to `limit` people behind the id `after`, before whom `matched` were found; none of them was routed, unless the
    event was on its way before. `window` is where that of an earlier page ended."""
    return in_transaction(lambda: _page(wanted, after, limit, matched, window))


def before(event: UUID, users: Sequence[str]) -> Before:
    """What is known of some users of an event."""
    notes = {ids.notification_id(event, user): user for user in users}
    wanted = list(map(str, notes))
    with cursor() as query:
        query.execute(_NOTIFICATIONS, (wanted,))
        rows = query.fetchall()
        query.execute(_KNOWN, (*map(str, of_event(event)), wanted))
        known = [(note, int(step)) for note, step in query.fetchall()]
    routed = {note for note, is_routed, _ in rows if is_routed}
    read_ms = {note: (notes[note], int(at_ms)) for note, _, at_ms in rows if at_ms is not None and note not in routed}
    return Before(frozenset(notes[note] for note in routed), [each for each in known if each[0] not in routed], read_ms)


def named_in(event: UUID) -> list[str]:
    """The ids of the recipients who were named when an event was posted."""
    with cursor() as query:
        query.execute("select jsonb_path_query(recipients, '$[*].id') #>> '{}' from events where id = %s", (event,))
        return [user for (user,) in query.fetchall()]


_NOTIFICATIONS: Final = """
select id, routed_at is not null, (extract(epoch from read_at) * 1000)::bigint from notifications
where id = any(%s::uuid[])
"""
_KNOWN: Final = """
select notification_id, step from deliveries
where id between %s and %s and event_id is null and notification_id = any(%s::uuid[])
"""


def _page(of: Wanted, after: str, limit: int, matched: int, window: str) -> People:
    values: dict[str, Any] = {"after": after, "limit": limit, "type": of.type, "window": WINDOW}
    with cursor() as query:
        end = window if window > after else _end_of_window(query, of.audience, values)
        query.execute(_statement(of.audience, values, end), values)
        found = query.fetchall()
        is_full, is_all = len(found) == limit, end == _BEHIND_ALL
        reached = end if not is_full and not is_all else found[-1][0] if found else after
        if reached > after:
            query.execute(_REACH, {"event": str(of.event), "reached": reached, "matched": matched})
    return People(found, reached, not is_full and is_all, end)


def _end_of_window(query: Any, audience: Audience, values: dict[str, Any]) -> str:
    """The id up to which a filter is tried in one statement."""
    if audience.segment is None or audience.everyone:
        return _BEHIND_ALL
    query.execute(_WINDOW, values)
    row = query.fetchone()
    return row[0] if row else _BEHIND_ALL


def _statement(audience: Audience, values: dict[str, Any], end: str) -> str:
    within = ""
    if end != _BEHIND_ALL:
        values["end"] = end
        within = " where id <= %(end)s"
    parts = " union ".join(f"({part} order by 1 limit %(limit)s)" for part in _parts(audience, values))
    return (
        f"with wanted as materialized (select id from ({parts}) as found (id){within} order by id limit %(limit)s)"  # noqa: S608
        f" select wanted.id, {ENTRY} from wanted left join users person on person.id = wanted.id"
        " left join preferences preference on preference.user_id = wanted.id order by wanted.id"
    )


def _parts(audience: Audience, values: dict[str, Any]) -> list[str]:
    """The parts of the union, each the ids behind `after`; what they compare with goes into `values`."""
    if audience.everyone:
        # Whoever else is asked for is a member whom nobody knows.
        parts = ["select id from users where id > %(after)s"]
    elif audience.segment is not None:
        wanted = condition(audience.segment, values)
        upto = " and id <= %(end)s" if "end" in values else ""
        parts = [f"select id from users where id > %(after)s{upto} and {wanted}"]  # noqa: S608  # values are parameters
    else:
        parts = []
    parts += [_of_topic(choice, values) for choice in audience.topics]
    if audience.subscribers:
        parts.append("select user_id from subscriptions where type = %(type)s and active and user_id > %(after)s")
    return parts


def _of_topic(choice: TopicChoice, values: dict[str, Any]) -> str:
    topic = _put(values, choice.key)
    some = f" and roles && {_put(values, list(choice.roles))}::text[]" if choice.roles else ""
    return f"select user_id from members where topic = {topic} and user_id > %(after)s{some}"  # noqa: S608


def condition(wanted: Filter, values: dict[str, Any]) -> str:
    """A filter as a condition on users, never null; what callers wrote goes into `values` alone."""
    match wanted:
        case Check():
            return _check(wanted, values)
        case Not(part):
            return f"not {condition(part, values)}"
        case All(parts):
            return f"({' and '.join(condition(part, values) for part in parts)})"
        case Some(parts):
            return f"({' or '.join(condition(part, values) for part in parts)})"


_COMPARED: Final = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def _check(check: Check, values: dict[str, Any]) -> str:
    name, value = _put(values, check.name), check.value
    if check.operator in _COMPARED:
        return _comparison(name, check, values)
    if check.operator == "exists":
        return f"attributes ? {name}"
    if check.operator == "contains":
        return f"attributes @> {_put(values, _json({check.name: [value]}))}::jsonb"
    given = value if isinstance(value, tuple) else (value,)
    equal = (f"attributes @> {_put(values, _json({check.name: each}))}::jsonb" for each in given)
    return f"({' or '.join(equal)})"


def _comparison(name: str, check: Check, values: dict[str, Any]) -> str:
    """Numbers with numbers, texts with texts by their code points; what the attribute is is asked first."""
    is_text = isinstance(check.value, str)
    kind, cast = ("string", ' collate "C"') if is_text else ("number", "::numeric")
    other = _put(values, check.value if is_text else _json(check.value)) + ("" if is_text else "::numeric")
    return (
        f"(attributes ? {name} and case when jsonb_typeof(attributes -> {name}) = '{kind}'"
        f" then (attributes ->> {name}){cast} {_COMPARED[check.operator]} {other} else false end)"
    )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _put(values: dict[str, Any], value: Any) -> str:
    """Keeps a value and answers the parameter that stands for it."""
    name = f"v{len(values)}"
    values[name] = value
    return f"%({name})s"
