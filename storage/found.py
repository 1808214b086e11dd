"""People of an audience as chunks carry them: with what routing needs, so that it asks nobody.

Postgres writes the entry (audience.py) and Python reads it (route); in between it is text. A person who was named
stands in a chunk as an object, one who was found as a list.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import TypeAdapter

from tocsin.domain.event import Contact, Recipient


@dataclass(frozen=True, slots=True)
class Found:
    """A person of an audience; `contact` is None for a member whom nobody knows. Of devices there are as many tokens as
    there are, each empty."""

    id: str
    contact: Contact | None


ENTRY: Final = """case when person.id is null and preference.user_id is null then json_build_array(wanted.id)
  else json_build_array(wanted.id, coalesce(person.active, true), person.email, person.phone,
    (select count(*) from devices where user_id = wanted.id), coalesce(preference.opt_outs, '[]')) end::text"""
"""The entry in SQL, of rows of users (`person`) and preferences (`preference`) beside `wanted.id`."""


_NAMED: Final = TypeAdapter(list[Recipient])


def people_of(entries: Sequence[str]) -> list[Recipient | Found]:
    """The people of a chunk. All of them were named, or all were found."""
    text = f"[{','.join(entries)}]"
    if text.startswith("[["):
        return list(map(_found_of, json.loads(text)))
    return list(_NAMED.validate_json(text))


def _found_of(entry: list[Any]) -> Found:
    """Made without checks: Postgres made it of what was checked."""
    if len(entry) == 1:
        return Found(entry[0], None)
    user, active, email, phone, devices, opt_outs = entry
    made = Contact.model_construct(
        id=user, email=email, phone=phone, active=active, tokens=("",) * devices, opt_outs=tuple(opt_outs)
    )
    return Found(user, made)
