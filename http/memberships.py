"""Members of many topics at once: `POST /api/memberships`, which `tocsin topics import` uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tocsin.domain.addresses import fit_user_id
from tocsin.domain.audience import KIND, fit_roles, fit_topic_key
from tocsin.domain.errors import InvalidInput
from tocsin.http.caller import SENDERS
from tocsin.http.endpoint import Call, Endpoint
from tocsin.http.problems import KINDS, TOO_MANY, UNKNOWN_TOPIC, Problem
from tocsin.http.shapes import NoQuery
from tocsin.http.topic_shapes import GivenMembership, MembershipsPosted, PostMemberships, RejectedMembership
from tocsin.http.topics import SHOWN_OF_ID, SHOWN_UNKNOWN
from tocsin.storage import topics

_KIND: Final = "group"


class _Screen:
    """The members that can be stored, the topics that may have to be made, and who is left out."""

    def __init__(self, given: Sequence[GivenMembership]) -> None:
        self._given = given
        self.places: dict[tuple[str, str], int] = {}
        self.good: dict[tuple[str, str], Sequence[str]] = {}
        self.kinds: dict[str, str] = {}
        self.rejected: list[RejectedMembership] = []
        for place, member in enumerate(given):
            try:
                self._take(place, member)
            except InvalidInput as error:
                self.reject(place, error.code, error.field, error.detail)

    def _take(self, place: int, member: GivenMembership) -> None:
        """Of two with one topic and user the last counts; of two kinds of a topic the first."""
        named = fit_topic_key(member.topic, "/topic"), fit_user_id(member.user_id, "/userId")
        roles = fit_roles(member.roles, "/roles")
        if member.kind is not None and not KIND.fullmatch(member.kind):
            raise InvalidInput("/kind", "It is not 1 to 50 of small letters, digits, _ and -", code="bad_format")
        self.good[named], self.places[named] = roles, place
        self.kinds.setdefault(member.topic, member.kind or _KIND)

    def reject(self, place: int, code: str, field: str, detail: str) -> None:
        member = self._given[place]
        self.rejected.append(
            RejectedMembership(
                index=place,
                topic=member.topic[:SHOWN_OF_ID],
                user_id=member.user_id[:SHOWN_OF_ID],
                code=code,
                field=field,
                detail=detail,
                mend=KINDS[code].mend,
            )
        )

    def reject_unknown(self, unknown: set[str]) -> None:
        """Leaves out the members of topics that there are not."""
        for named in [named for named in self.good if named[0] in unknown]:
            del self.good[named]
            self.reject(self.places[named], UNKNOWN_TOPIC.code, "/topic", UNKNOWN_TOPIC.title)
        self.rejected.sort(key=lambda each: each.index)


async def post_memberships(call: Call[PostMemberships, NoQuery]) -> MembershipsPosted:
    """Makes people members of many topics, each with these roles in place of those they had. One that is wrong is
    listed and does not stop the others."""
    most = call.context.settings.limits.members
    if len(call.body.members) > most:
        raise Problem(TOO_MANY, f"More than {most} members in one request.", field="/members")
    screen = _Screen(call.body.members)
    kinds = screen.kinds if call.body.make_topics else {}
    joined, unknown = await call.context.store.postgres.call(topics.add_memberships, screen.good, kinds)
    screen.reject_unknown(unknown)
    return MembershipsPosted(
        added=joined.added,
        changed=joined.changed,
        unchanged=len(screen.good) - joined.added - joined.changed,
        topics_made=joined.made,
        unknown=len(joined.unknown),
        unknown_ids=tuple(joined.unknown[:SHOWN_UNKNOWN]),
        rejected=tuple(screen.rejected),
    )


ENDPOINTS: Final = (
    Endpoint(
        method="POST",
        path="/api/memberships",
        handler=post_memberships,
        summary="Add members of many topics",
        tag="topics",
        who=SENDERS,
        body=PostMemberships,
        answer=MembershipsPosted,
        problems=(TOO_MANY,),
    ),
)
