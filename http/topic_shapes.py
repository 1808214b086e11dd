"""What is taken and answered about topics and their members."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from tocsin.domain.audience import KIND, MOST_ROLES, ROLE
from tocsin.http.shapes import Answer, Asked, Line, Listing, Moment, Paging, limited

Kind = Annotated[str, StringConstraints(pattern=f"^{KIND.pattern}$")]
Role = Annotated[str, StringConstraints(pattern=f"^{ROLE.pattern}$")]


class PutTopic(Asked):
    """A named group. `kind` says what sort of group it is, such as family, community or region."""

    kind: Kind = "group"
    name: Annotated[Line, StringConstraints(max_length=200)] | None = None


class Topic(Answer):
    """A topic, as stored."""

    key: str
    kind: str
    name: str | None
    created_at: Moment


class TopicWithMembers(Topic):
    """A topic and how many members it has."""

    members: int


class Topics(Listing[Topic]):
    """A page of topics, by key."""


class TopicQuery(Paging):
    """Which topics."""

    kind: Kind | None = None


class MemberQuery(Paging):
    """Which members."""

    role: Role | None = None


class Member(Answer):
    """Somebody who belongs to a topic. One who is not `known` as a user is counted and not reached."""

    user_id: str
    roles: tuple[str, ...]
    known: bool


class Members(Listing[Member]):
    """A page of members, by user id."""


class GivenMember(Asked):
    """A member. One that is wrong is left out and listed, so no form is asked of a text here: it would refuse the
    others too."""

    user_id: str
    roles: Annotated[tuple[str, ...], Field(max_length=5 * MOST_ROLES)] = ()


class PostMembers(Asked):
    """People who become members, or get other roles. With `replace` nobody else is a member then."""

    members: tuple[GivenMember, ...] = Field(json_schema_extra=limited("members"))
    replace: bool = False


class GivenMembership(Asked):
    """A member of one of many topics. One that is wrong is left out and listed."""

    topic: str
    user_id: str
    roles: Annotated[tuple[str, ...], Field(max_length=5 * MOST_ROLES)] = ()
    kind: str | None = None
    """What sort of group the topic is, where it has to be made."""


class PostMemberships(Asked):
    """Members of many topics. With `makeTopics` topics that there are not are made."""

    members: Annotated[tuple[GivenMembership, ...], Field(min_length=1, json_schema_extra=limited("members"))]
    make_topics: bool = False


class RejectedMembership(Answer):
    """A member who was left out, by the place in the request: which field is wrong, why, and what to do."""

    index: int
    topic: str
    user_id: str
    code: str
    field: str
    detail: str
    mend: str


class MembershipsPosted(Answer):
    """What became of the members. `unknown` are those who are no known users; the first hundred are named."""

    success: Literal[True] = True
    added: int
    changed: int
    unchanged: int
    topics_made: int
    unknown: int
    unknown_ids: tuple[str, ...]
    rejected: tuple[RejectedMembership, ...]


class DeleteMembers(Asked):
    """People who are no members any more."""

    user_ids: tuple[str, ...] = Field(min_length=1, json_schema_extra=limited("members"))


class RejectedMember(Answer):
    """A member who was left out, by its place in the request: which field is wrong, why, and what to do."""

    index: int
    user_id: str
    code: str
    field: str
    detail: str
    mend: str


class MembersPosted(Answer):
    """What became of the members. `unknown` are those who are no known users; the first hundred are named."""

    success: Literal[True] = True
    added: int
    changed: int
    unchanged: int
    removed: int
    unknown: int
    unknown_ids: tuple[str, ...]
    rejected: tuple[RejectedMember, ...]


class MembersDeleted(Answer):
    """How many memberships ended."""

    success: Literal[True] = True
    removed: int
