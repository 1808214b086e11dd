"""People: where they can be reached, their devices, and what they switched off (P1).

A change is stored in Postgres first and then copied to Redis, where plans and claims look. When Redis is away the
answer is 503, though Postgres has the change: the caller tries again, so that an old copy does not outlive it.
"""

from __future__ import annotations

import time
from typing import Any, Final

from starlette.responses import Response

from tocsin.domain.addresses import known_timezone, normal_email, normal_phone
from tocsin.domain.attributes import fit_attributes
from tocsin.domain.errors import NotFound
from tocsin.http.caller import SENDERS, SENDERS_AND_USER, VIEWERS, VIEWERS_AND_USER
from tocsin.http.cursors import page_of
from tocsin.http.endpoint import Call, Endpoint
from tocsin.http.idempotency import once
from tocsin.http.problems import (
    BAD_ATTRIBUTE,
    BAD_EMAIL,
    BAD_PHONE,
    BAD_TIMEZONE,
    BAD_USER_ID,
    FORBIDDEN,
    TOKENS_NOT_CONFIGURED,
    Problem,
)
from tocsin.http.shapes import NoQuery, Paging
from tocsin.http.user_shapes import (
    Device,
    Devices,
    Preferences,
    PutDevice,
    PutPreferences,
    PutUser,
    User,
    Users,
    UserToken,
    opt_outs_of,
    preferences_of,
    user_of,
)
from tocsin.storage import users


async def list_users(call: Call[None, Paging]) -> Users:
    """Everybody who is stored, by id."""
    found = await call.context.store.postgres.call(users.list_users, call.query.limit + 1, call.query.cursor or "")
    page, after = page_of(found, call.query.limit, lambda last: last.id)
    attributes = await call.context.store.postgres.call(users.attributes_of, [contact.id for contact in page])
    return Users(data=tuple(user_of(contact, attributes.get(contact.id, {})) for contact in page), next_cursor=after)


async def put_user(call: Call[PutUser, NoQuery]) -> User:
    """Stores a person; what is left out is cleared. Only a key can say whether somebody is active, and which attributes
    somebody has."""
    user, body = call.user(), call.body
    if call.caller.user is None:
        most = call.context.settings.limits.attributes
        active, attributes = body.active, fit_attributes(body.attributes or {}, most)
    else:
        active, attributes = await _as_it_was(call, user)
    details = {
        "email": body.email and normal_email(body.email, "/email"),
        "phone": body.phone and normal_phone(body.phone, "/phone"),
        "name": body.name,
        "locale": body.locale,
        "timezone": body.timezone and known_timezone(body.timezone, "/timezone"),
    }
    store = call.context.store
    contact = await store.postgres.call(users.put_user, user, active=active, attributes=attributes, **details)
    await store.profiles.keep([contact])
    return user_of(contact, attributes)


async def get_user(call: Call[None, NoQuery]) -> User:
    """A stored person."""
    user, postgres = call.user(), call.context.store.postgres
    contact = await postgres.call(users.get_user, user)
    if contact is None:
        raise NotFound
    return user_of(contact, (await postgres.call(users.attributes_of, [user])).get(user, {}))


async def delete_user(call: Call[None, NoQuery]) -> Response:
    """Removes a person with devices and preferences. What was sent to them stays in the record."""
    user, store = call.user(), call.context.store
    found = await store.postgres.call(users.delete_user, user)
    call.context.known_users.forget(user)
    await store.profiles.forget(user)
    if not found:
        raise NotFound
    return Response(status_code=204)


async def list_devices(call: Call[None, NoQuery]) -> Devices:
    """The devices of a person, the oldest first. Their tokens are not shown."""
    found = await call.context.store.postgres.call(users.list_devices, call.user())
    return Devices(data=tuple(map(_device, found)))


async def put_device(call: Call[PutDevice, NoQuery]) -> Device:
    """Adds a device. A token stands for one installation: it leaves whoever had it before."""
    store = call.context.store
    added = await store.postgres.call(users.put_device, call.user(), call.body.token)
    await store.profiles.keep(await store.postgres.call(users.contacts, added.changed))
    return _device(added.device)


async def post_device(call: Call[PutDevice, NoQuery]) -> Device:
    """The same as PUT."""
    return await put_device(call)


async def delete_device(call: Call[None, NoQuery]) -> Response:
    """Removes a device."""
    user, device, store = call.user(), call.id("device"), call.context.store
    if not await store.postgres.call(users.delete_device, user, device):
        raise NotFound
    await store.profiles.keep(await store.postgres.call(users.contacts, [user]))
    return Response(status_code=204)


async def get_preferences(call: Call[None, NoQuery]) -> Preferences:
    """What a person wants; everything is on where nothing was said."""
    return preferences_of(await call.context.store.postgres.call(users.get_preferences, call.user()))


async def put_preferences(call: Call[PutPreferences, NoQuery]) -> Preferences:
    """Stores what a person wants, in place of what was; what is left out is on. Off holds for CRITICAL too, and at
    once: also for what is already planned."""
    store = call.context.store
    contact = await store.postgres.call(users.put_preferences, call.user(), opt_outs_of(call.body))
    await store.profiles.keep([contact])
    return preferences_of(contact.opt_outs)


async def post_token(call: Call[None, NoQuery]) -> UserToken:
    """Makes a token with which an end user's page sees what is theirs, and nothing else."""
    user = call.user()

    async def make() -> dict[str, Any]:
        token, expires_ms = call.context.authenticator.mint(user, int(time.time()))
        return {"token": token, "user_id": user, "expires_at": expires_ms}

    return UserToken(**await once(call, make))


async def _as_it_was(call: Call[PutUser, NoQuery], user: str) -> tuple[bool, dict[str, Any]]:
    """What a key said last; users have no say in it."""
    if barred := call.body.model_fields_set & {"active", "attributes"}:
        field = min(barred)
        raise Problem(FORBIDDEN, f"Only a key can say which {field} a user has.", field=f"/{field}")
    postgres = call.context.store.postgres
    contact = await postgres.call(users.get_user, user)
    attributes = (await postgres.call(users.attributes_of, [user])).get(user, {})
    return contact is None or contact.active, attributes


def _device(stored: users.StoredDevice) -> Device:
    return Device(id=stored.id, kind="FCM", added_at=stored.created_ms)


_USER: Final = "/api/users/{user}"
_TAG: Final = "users"

ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path="/api/users",
        handler=list_users,
        summary="List people",
        tag=_TAG,
        who=VIEWERS,
        query=Paging,
        answer=Users,
    ),
    Endpoint(
        method="PUT",
        path=_USER,
        handler=put_user,
        summary="Store a person",
        tag=_TAG,
        who=SENDERS_AND_USER,
        body=PutUser,
        answer=User,
        problems=(BAD_USER_ID, BAD_EMAIL, BAD_PHONE, BAD_TIMEZONE, BAD_ATTRIBUTE),
    ),
    Endpoint(
        method="GET",
        path=_USER,
        handler=get_user,
        summary="One person",
        tag=_TAG,
        who=VIEWERS_AND_USER,
        answer=User,
        problems=(BAD_USER_ID,),
    ),
    Endpoint(
        method="DELETE",
        path=_USER,
        handler=delete_user,
        summary="Remove a person",
        tag=_TAG,
        who=SENDERS_AND_USER,
        status=204,
        problems=(BAD_USER_ID,),
    ),
    Endpoint(
        method="GET",
        path=f"{_USER}/devices",
        handler=list_devices,
        summary="A person's devices",
        tag=_TAG,
        who=VIEWERS_AND_USER,
        answer=Devices,
        problems=(BAD_USER_ID,),
    ),
    Endpoint(
        method="PUT",
        path=f"{_USER}/devices",
        handler=put_device,
        summary="Add a device",
        tag=_TAG,
        who=SENDERS_AND_USER,
        body=PutDevice,
        answer=Device,
        problems=(BAD_USER_ID,),
    ),
    Endpoint(
        method="POST",
        path=f"{_USER}/devices",
        handler=post_device,
        summary="Add a device",
        tag=_TAG,
        who=SENDERS_AND_USER,
        body=PutDevice,
        answer=Device,
        problems=(BAD_USER_ID,),
    ),
    Endpoint(
        method="DELETE",
        path=f"{_USER}/devices/{{device}}",
        handler=delete_device,
        summary="Remove a device",
        tag=_TAG,
        who=SENDERS_AND_USER,
        status=204,
        problems=(BAD_USER_ID,),
    ),
    Endpoint(
        method="GET",
        path=f"{_USER}/preferences",
        handler=get_preferences,
        summary="What a person wants",
        tag=_TAG,
        who=VIEWERS_AND_USER,
        answer=Preferences,
        problems=(BAD_USER_ID,),
    ),
    Endpoint(
        method="PUT",
        path=f"{_USER}/preferences",
        handler=put_preferences,
        summary="Say what a person wants",
        tag=_TAG,
        who=SENDERS_AND_USER,
        body=PutPreferences,
        answer=Preferences,
        problems=(BAD_USER_ID,),
    ),
    Endpoint(
        method="POST",
        path=f"{_USER}/token",
        handler=post_token,
        summary="Make a user token",
        tag=_TAG,
        who=SENDERS,
        answer=UserToken,
        status=201,
        problems=(BAD_USER_ID, TOKENS_NOT_CONFIGURED),
        idempotent=True,
    ),
)
