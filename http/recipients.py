"""Whom a posted event is for: who is known, who was given with contact details, and who is left out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tocsin.domain.audience import Audience, audience_of
from tocsin.domain.errors import PostgresAway
from tocsin.domain.event import Recipient
from tocsin.domain.posting import Rejected, screen, screen_ids
from tocsin.http.context import Context
from tocsin.http.posting_shapes import PostNotification
from tocsin.http.problems import KINDS, NO_RECIPIENTS, TOO_MANY, UNKNOWN_TOPIC, FieldError, Problem, from_errors
from tocsin.storage import topics

SHOWN_OF_ID: Final = 128
"""How much is shown of an id that cannot be one."""

_MOST_ERRORS: Final = 20

# Checking a phone number or an address takes some 30 µs each, so a long list is checked beside the event loop.
_CHECKED_AT_ONCE: Final = 200


@dataclass(frozen=True, slots=True)
class People:
    """Whom an event is for, once looked at: `named` are those without a wrong detail, the unknown among them."""

    named: Sequence[Recipient]
    unknown: frozenset[str]
    rejected: Sequence[Rejected]
    audience: Audience | None

    @property
    def good(self) -> list[Recipient]:
        """Those who are notified."""
        return [person for person in self.named if person.id not in self.unknown]

    @property
    def count(self) -> int | None:
        """How many they are; None for an audience, which is not looked through yet."""
        return None if self.audience else len(self.good)

    @property
    def unknown_ids(self) -> list[str]:
        """Those who are not, in the order of the request."""
        return [person.id for person in self.named if person.id in self.unknown]


async def people_of(context: Context, body: PostNotification) -> People:
    """The recipients of a request without duplicates. Raises Problem when there are too many or none is left."""
    most = context.settings.limits.recipients
    if len(body.recipient_ids) + len(body.recipients) > most:
        raise Problem(TOO_MANY, f"More than {most} recipients in one request.", field="/recipientIds")
    given = [Recipient(**person.model_dump(exclude_none=True)) for person in body.recipients]
    inline = [person for person in given if person.inline]
    check = asyncio.to_thread(screen, inline) if len(inline) > _CHECKED_AT_ONCE else None
    good, rejected = await check if check else screen(inline)
    settled = {person.id for person in inline}
    named = [person.id for person in given] + list(body.recipient_ids)
    asked, misnamed = screen_ids(user for user in dict.fromkeys(named) if user not in settled)
    unknown = await context.known_users.unknown(asked)
    audience = await _audience_of(context, body)
    people = People(
        [*good, *(Recipient(id=user) for user in asked)], frozenset(unknown), [*rejected, *misnamed], audience
    )
    if not people.good and audience is None:
        raise _nobody(body, people)
    return people


async def _audience_of(context: Context, body: PostNotification) -> Audience | None:
    """Whom a request is for beside those it names. Raises InvalidInput, and Problem for a topic that is not known."""
    asked = [(topic.key, topic.roles) for topic in body.topics]
    audience = audience_of(asked, body.segment, subscribers=body.subscribers, everyone=body.everyone)
    if audience is None or not audience.topics:
        return audience
    known = await _known_topics(context, [topic.key for topic in audience.topics])
    places = [place for place, (key, _) in enumerate(asked) if key not in known]
    if places:
        raise from_errors(
            [
                FieldError(UNKNOWN_TOPIC, f"/topics/{place}/key", f"There is no topic {asked[place][0]}.")
                for place in places[:_MOST_ERRORS]
            ]
        )
    return audience


async def _known_topics(context: Context, keys: Sequence[str]) -> set[str]:
    """Those of `keys` that are topics now; with Postgres away all, for the fan-out, which waits for it, finds out."""
    try:
        return await context.store.postgres.call(topics.known, keys)
    except PostgresAway:
        return set(keys)


def _nobody(body: PostNotification, people: People) -> Problem:
    """That nobody is left to notify, with what is wrong with each, at its place in the body."""
    places = {user: f"/recipientIds/{place}" for place, user in reversed(list(enumerate(body.recipient_ids)))}
    details = {person.id: place for place, person in reversed(list(enumerate(body.recipients)))}
    errors = []
    for person in people.rejected[:_MOST_ERRORS]:
        kind = KINDS[person.code]
        inline = details.get(person.id)
        place = places[person.id] if inline is None else f"/recipients/{inline}/{person.field}"
        errors.append(FieldError(kind, place, kind.title))
    rejected = [
        {"id": person.id[:SHOWN_OF_ID], "code": person.code, "field": person.field} for person in people.rejected
    ]
    field = "/recipients" if body.recipients and not body.recipient_ids else "/recipientIds"
    more = {"unknownIds": people.unknown_ids, "rejectedRecipients": rejected}
    return Problem(NO_RECIPIENTS, field=field, errors=errors, more=more)
