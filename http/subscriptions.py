"""Which types of events a person wants where an event is posted to subscribers (P2), and the topics they belong to."""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field

from tocsin.domain.setting_sources import normal_type
from tocsin.http.caller import SENDERS_AND_USER, VIEWERS_AND_USER, Role
from tocsin.http.endpoint import Call, Endpoint
from tocsin.http.problems import BAD_USER_ID, FORBIDDEN, Problem
from tocsin.http.shapes import Answer, Asked, EventType, NoQuery
from tocsin.storage import subscriptions, topics

_MOST_TYPES: Final = 500
_SHOWN_TOPICS: Final = 1_000


class GivenSubscription(Asked):
    """A type of event, and whether it is wanted."""

    type: EventType
    active: bool = True


class PutSubscriptions(Asked):
    """What a person wants, in place of what was. Of a type for admins only nobody but an admin can say so: what an
    admin said stays."""

    types: tuple[GivenSubscription, ...] = Field(max_length=_MOST_TYPES)


class Subscription(Answer):
    """A type of event, and whether it is wanted. One that is `adminOnly` only an admin can change."""

    type: str
    active: bool
    admin_only: bool


class Membership(Answer):
    """A topic that a person belongs to, and as what."""

    key: str
    roles: tuple[str, ...]


class Subscriptions(Answer):
    """What a person wants, by type, and the topics they belong to: the first thousand."""

    types: tuple[Subscription, ...]
    topics: tuple[Membership, ...]


async def get_subscriptions(call: Call[None, NoQuery]) -> Subscriptions:
    """What a person subscribed to, and the topics they belong to."""
    return await _shown(call)


async def _shown(call: Call[Any, NoQuery]) -> Subscriptions:
    user, postgres = call.user(), call.context.store.postgres
    wanted = await postgres.call(subscriptions.subscriptions_of, user)
    memberships = await postgres.call(topics.topics_of, user, _SHOWN_TOPICS)
    return Subscriptions(
        types=tuple(
            Subscription(type=name, active=active, admin_only=_is_for_admins(call, name))
            for name, active in wanted.items()
        ),
        topics=tuple(Membership(key=key, roles=roles) for key, roles in memberships),
    )


async def put_subscriptions(call: Call[PutSubscriptions, NoQuery]) -> Subscriptions:
    """Stores what a person wants, in place of what was."""
    user, postgres = call.user(), call.context.store.postgres
    wanted = {normal_type(each.type): each.active for each in call.body.types}
    kept: frozenset[str] = frozenset()
    if call.caller.role is not Role.ADMIN:
        known = await postgres.call(subscriptions.subscriptions_of, user)
        kept = frozenset(name for name in known if _is_for_admins(call, name))
        for place, each in enumerate(call.body.types):
            name = normal_type(each.type)
            if _is_for_admins(call, name) and known.get(name) != each.active:
                detail = "Only an admin can say who gets events of this type."
                raise Problem(FORBIDDEN, detail, field=f"/types/{place}/type")
    await postgres.call(subscriptions.put_subscriptions, user, wanted, kept)
    return await _shown(call)


def _is_for_admins(call: Call[Any, NoQuery], event_type: str) -> bool:
    defaults = call.context.settings.type_defaults(event_type)
    return defaults.admin_only


_PATH: Final = "/api/users/{user}/subscriptions"
_TAG: Final = "users"

ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path=_PATH,
        handler=get_subscriptions,
        summary="What a person subscribed to",
        tag=_TAG,
        who=VIEWERS_AND_USER,
        answer=Subscriptions,
        problems=(BAD_USER_ID,),
    ),
    Endpoint(
        method="PUT",
        path=_PATH,
        handler=put_subscriptions,
        summary="Say what a person subscribes to",
        tag=_TAG,
        who=SENDERS_AND_USER,
        body=PutSubscriptions,
        answer=Subscriptions,
        problems=(BAD_USER_ID,),
    ),
)
