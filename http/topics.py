"""Topics: named groups with members and their roles, to whom events can be posted (F1, F2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from starlette.responses import Response

from tocsin.domain.addresses import USER_ID, fit_user_id
from tocsin.domain.audience import fit_roles, fit_topic_key
from tocsin.domain.errors import InvalidInput, NotFound
from tocsin.http.caller import SENDERS, VIEWERS
from tocsin.http.endpoint import Call, Endpoint
from tocsin.http.problems import BAD_TOPIC_KEY, BAD_USER_ID, KINDS, TOO_MANY, Problem
from tocsin.http.shapes import NoQuery
from tocsin.http.topic_shapes import (
    DeleteMembers,
    GivenMember,
    Member,
    MemberQuery,
    Members,
    MembersDeleted,
    MembersPosted,
    PostMembers,
    PutTopic,
    RejectedMember,
    Topic,
    TopicQuery,
    Topics,
    TopicWithMembers,
)
from tocsin.storage import topics

SHOWN_UNKNOWN: Final = 100
SHOWN_OF_ID: Final = 128


async def list_topics(call: Call[None, TopicQuery]) -> Topics:
    """Topics by key; `?kind=` those of a kind."""
    query = call.query
    found = await call.context.store.postgres.call(topics.list_topics, query.limit + 1, query.cursor or "", query.kind)
    page, rest = found[: query.limit], found[query.limit :]
    return Topics(data=tuple(map(_topic, page)), next_cursor=page[-1].key if rest else None)


async def put_topic(call: Call[PutTopic, NoQuery]) -> Topic:
    """Makes a topic, or gives it another kind and name; its members stay."""
    return _topic(await call.context.store.postgres.call(topics.put_topic, _key(call), call.body.kind, call.body.name))


async def get_topic(call: Call[None, NoQuery]) -> TopicWithMembers:
    """A topic and how many members it has."""
    found = await call.context.store.postgres.call(topics.get_topic, _key(call))
    if found is None:
        raise NotFound
    topic, members = found
    return TopicWithMembers(**dict(_topic(topic)), members=members)


async def delete_topic(call: Call[None, NoQuery]) -> Response:
    """Removes a topic with its members. An event that is being fanned out to it reaches nobody more."""
    found = await call.context.store.postgres.call(topics.delete_topic, _key(call))
    if not found:
        raise NotFound
    return Response(status_code=204)


async def list_members(call: Call[None, MemberQuery]) -> Members:
    """Members by user id; `?role=` those with a role."""
    query = call.query
    found = await call.context.store.postgres.call(
        topics.list_members, _key(call), query.limit + 1, query.cursor or "", query.role
    )
    page, rest = found[: query.limit], found[query.limit :]
    return Members(
        data=tuple(Member(user_id=each.user, roles=each.roles, known=each.known) for each in page),
        next_cursor=page[-1].user if rest else None,
    )


async def post_members(call: Call[PostMembers, NoQuery]) -> MembersPosted:
    """Makes people members with these roles in place of those they had, thousands at once; a user may be named before
    there is one. One that is wrong is listed and does not stop the others, unless everybody else is to be removed."""
    given = call.body.members
    _check_count(call, len(given), "/members")
    good, rejected = _screen(given)
    if rejected and call.body.replace:
        first = rejected[0]
        raise Problem(KINDS[first.code], first.detail, field=f"/members/{first.index}{first.field}")
    joined = await call.context.store.postgres.call(topics.add_members, _key(call), good, replace=call.body.replace)
    return MembersPosted(
        added=joined.added,
        changed=joined.changed,
        unchanged=len(good) - joined.added - joined.changed,
        removed=joined.removed,
        unknown=len(joined.unknown),
        unknown_ids=tuple(joined.unknown[:SHOWN_UNKNOWN]),
        rejected=tuple(rejected),
    )


async def delete_members(call: Call[DeleteMembers, NoQuery]) -> MembersDeleted:
    """Ends the memberships of those named."""
    _check_count(call, len(call.body.user_ids), "/userIds")
    named = [user for user in call.body.user_ids if USER_ID.fullmatch(user)]
    removed = await call.context.store.postgres.call(topics.remove_members, _key(call), named)
    return MembersDeleted(removed=removed)


def _key(call: Call[Any, Any]) -> str:
    return fit_topic_key(call.request.path_params["topic"], "topic")


def _check_count(call: Call[Any, Any], count: int, field: str) -> None:
    most = call.context.settings.limits.members
    if count > most:
        raise Problem(TOO_MANY, f"More than {most} members in one request.", field=field)


def _screen(given: Sequence[GivenMember]) -> tuple[dict[str, Sequence[str]], list[RejectedMember]]:
    """The members by user, and those who are wrong. Of two with one user the last counts."""
    good: dict[str, Sequence[str]] = {}
    rejected: list[RejectedMember] = []
    for place, member in enumerate(given):
        try:
            good[fit_user_id(member.user_id, "/userId")] = fit_roles(member.roles, "/roles")
        except InvalidInput as error:
            shown = member.user_id[:SHOWN_OF_ID]
            mend = KINDS[error.code].mend
            rejected.append(
                RejectedMember(
                    index=place, user_id=shown, code=error.code, field=error.field, detail=error.detail, mend=mend
                )
            )
    return good, rejected


def _topic(stored: topics.Topic) -> Topic:
    return Topic(key=stored.key, kind=stored.kind, name=stored.name, created_at=stored.created_ms)


_TOPIC: Final = "/api/topics/{topic}"
_MEMBERS: Final = f"{_TOPIC}/members"
_TAG: Final = "topics"

ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path="/api/topics",
        handler=list_topics,
        summary="List topics",
        tag=_TAG,
        who=VIEWERS,
        query=TopicQuery,
        answer=Topics,
    ),
    Endpoint(
        method="PUT",
        path=_TOPIC,
        handler=put_topic,
        summary="Make a topic",
        tag=_TAG,
        who=SENDERS,
        body=PutTopic,
        answer=Topic,
        problems=(BAD_TOPIC_KEY,),
    ),
    Endpoint(
        method="GET",
        path=_TOPIC,
        handler=get_topic,
        summary="One topic",
        tag=_TAG,
        who=VIEWERS,
        answer=TopicWithMembers,
        problems=(BAD_TOPIC_KEY,),
    ),
    Endpoint(
        method="DELETE",
        path=_TOPIC,
        handler=delete_topic,
        summary="Remove a topic",
        tag=_TAG,
        who=SENDERS,
        status=204,
        problems=(BAD_TOPIC_KEY,),
    ),
    Endpoint(
        method="GET",
        path=_MEMBERS,
        handler=list_members,
        summary="Who belongs to a topic",
        tag=_TAG,
        who=VIEWERS,
        query=MemberQuery,
        answer=Members,
        problems=(BAD_TOPIC_KEY,),
    ),
    Endpoint(
        method="POST",
        path=_MEMBERS,
        handler=post_members,
        summary="Add members, or change their roles",
        tag=_TAG,
        who=SENDERS,
        body=PostMembers,
        answer=MembersPosted,
        problems=(BAD_TOPIC_KEY, BAD_USER_ID, TOO_MANY),
    ),
    Endpoint(
        method="DELETE",
        path=_MEMBERS,
        handler=delete_members,
        summary="Remove members",
        tag=_TAG,
        who=SENDERS,
        body=DeleteMembers,
        answer=MembersDeleted,
        problems=(BAD_TOPIC_KEY, TOO_MANY),
    ),
)
