"""People of an audience as chunks carry them: with what routing needs, so that it asks nobody.

Postgres writes the entry (audience.py) and Python reads it (route); in between it is text. A person who was named
stands in a chunk as an object, one who was found as a list.
"""

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from pydantic import TypeAdapter

from tocsin.domain.event import Contact, Recipient


class Found(NamedTuple):
    """A person of an audience, as far as planning asks; of a member whom nobody knows only the id."""

    id: str
    active: bool = True
    email: str | None = None
    phone: str | None = None
    devices: int = 0
    opt_outs: Sequence[str] = ()
    known: bool = True


ENTRY: Final = """case when person.id is null and preference.user_id is null then json_build_array(wanted.id)
  else json_build_array(wanted.id, coalesce(person.active, true), person.email, person.phone,
    (select count(*) from devices where user_id = wanted.id), coalesce(preference.opt_outs, '[]')) end::text"""
"""The entry in SQL, of rows of users (`person`) and preferences (`preference`) beside `wanted.id`."""


_NAMED: Final = TypeAdapter(list[Recipient])
_CONTACTS: Final = TypeAdapter(list[Contact])


def contacts_in(text: str) -> dict[str, Contact]:
    """The contacts of a JSON list, by user."""
    return {contact.id: contact for contact in _CONTACTS.validate_json(text)}


def people_of(text: str) -> list[Recipient | Found]:
    """The people of a chunk, a JSON list. All of them were named, or all were found."""
    if text.startswith("[["):
        return list(map(_found_of, json.loads(text)))
    return list(_NAMED.validate_json(text))


def _found_of(entry: list[Any]) -> Found:
    """Made without checks: Postgres made it of what was checked."""
    return Found(*entry) if len(entry) > 1 else Found(entry[0], known=False)
