"""Whom an event is for beside a list of ids: topics, a filter over attributes, subscribers of its type, everyone (F1,
F2).

A union; nobody is in it twice. Pure: storage/audience.py finds the people.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, PlainSerializer, PlainValidator

from tocsin.domain.errors import InvalidInput
from tocsin.domain.filters import Filter, filter_of, form_of, stored_filter

TOPIC_KEY: Final = re.compile(r"[A-Za-z0-9._:@+-]{1,128}")
KIND: Final = re.compile(r"[a-z][a-z0-9_-]{0,49}")
ROLE: Final = re.compile(r"[A-Za-z0-9._:@+-]{1,64}")
MOST_TOPICS: Final = 100
MOST_ROLES: Final = 20


class TopicChoice(BaseModel):
    """The members of a topic; those with one of `roles` where there are any."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    key: str
    roles: tuple[str, ...] = ()


AnyFilter = Annotated[Filter, PlainValidator(stored_filter), PlainSerializer(form_of)]
"""A filter, in JSON in the form that callers write."""


class Audience(BaseModel):
    """The people who are in any of these."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True, arbitrary_types_allowed=True)

    topics: tuple[TopicChoice, ...] = ()
    segment: AnyFilter | None = None
    subscribers: bool = False
    everyone: bool = False


def audience_of(
    topics: Iterable[tuple[str, Sequence[str]]], segment: Any, *, subscribers: bool, everyone: bool
) -> Audience | None:
    """What a caller asked for, made normal; None where that is nobody. Raises InvalidInput."""
    chosen = _topics_of(list(topics))
    wanted = None if segment is None else filter_of(segment, "/segment")
    if not chosen and wanted is None and not subscribers and not everyone:
        return None
    return Audience(topics=chosen, segment=wanted, subscribers=subscribers, everyone=everyone)


def fit_topic_key(text: str, field: str) -> str:
    """`text`, if it can be the key of a topic. Raises InvalidInput `bad_topic_key`."""
    if not TOPIC_KEY.fullmatch(text):
        raise InvalidInput(field, "It is not 1 to 128 of letters, digits and . _ : @ + -", code="bad_topic_key")
    return text


def fit_roles(roles: Sequence[str], field: str) -> tuple[str, ...]:
    """`roles` in order, each once. Raises InvalidInput `bad_role` and `too_many`."""
    for place, role in enumerate(roles):
        if not ROLE.fullmatch(role):
            detail = "It is not 1 to 64 of letters, digits and . _ : @ + -"
            raise InvalidInput(f"{field}/{place}", detail, code="bad_role")
    if len(set(roles)) > MOST_ROLES:
        raise InvalidInput(field, f"There are more than {MOST_ROLES} roles.", code="too_many")
    return tuple(sorted(set(roles)))


def _topics_of(topics: Sequence[tuple[str, Sequence[str]]]) -> tuple[TopicChoice, ...]:
    """Of two choices of one topic both count; without roles a choice is the whole topic."""
    if len(topics) > MOST_TOPICS:
        raise InvalidInput("/topics", f"There are more than {MOST_TOPICS} topics.", code="too_many")
    chosen: dict[str, set[str] | None] = {}
    for place, (key, roles) in enumerate(topics):
        name = fit_topic_key(key, f"/topics/{place}/key")
        some = set(fit_roles(roles, f"/topics/{place}/roles"))
        known = chosen.get(name, set())
        chosen[name] = known | some if some and known is not None else None
    return tuple(TopicChoice(key=key, roles=tuple(sorted(roles or ()))) for key, roles in sorted(chosen.items()))
