"""Many people at once: `POST /api/users`, which `tocsin users import` uses."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tocsin.domain.addresses import fit_locale, fit_name, fit_user_id, known_timezone, normal_email, normal_phone
from tocsin.domain.attributes import fit_attributes
from tocsin.domain.errors import InvalidInput
from tocsin.http.caller import SENDERS
from tocsin.http.endpoint import Call, Endpoint
from tocsin.http.problems import KINDS, TOO_MANY, Problem
from tocsin.http.shapes import NoQuery
from tocsin.http.user_shapes import GivenUser, PostUsers, RejectedUser, UsersPosted
from tocsin.storage import users
from tocsin.storage.store import Store

_SHOWN_OF_ID: Final = 128
_CHECKS: Final = {
    "email": normal_email,
    "phone": normal_phone,
    "name": fit_name,
    "locale": fit_locale,
    "timezone": known_timezone,
}


async def post_users(call: Call[PostUsers, NoQuery]) -> UsersPosted:
    """Stores many people, each as a whole: what is left out of one is cleared. One that is wrong is listed and does not
    stop the others; of two with one id the last counts."""
    given, limits = call.body.users, call.context.settings.limits
    if len(given) > limits.users:
        raise Problem(TOO_MANY, f"More than {limits.users} users in one request.", field="/users")
    # Checking an address takes some 30 µs, so it is done beside the event loop.
    good, rejected = await asyncio.to_thread(_screen, given, limits.attributes)
    if good:
        await _store(call.context.store, good)
    return UsersPosted(stored=len(good), rejected=tuple(rejected))


async def _store(store: Store, people: Sequence[Mapping[str, Any]]) -> None:
    """Of most nothing is copied to Redis, for nobody has asked for them there."""
    stored = await store.postgres.call(users.import_users, people)
    if copied := await store.profiles.there(stored):
        await store.profiles.renew(await store.postgres.call(users.contacts, copied))


def _screen(given: Sequence[GivenUser], most_bytes: int) -> tuple[list[Mapping[str, Any]], list[RejectedUser]]:
    good: dict[str, Mapping[str, Any]] = {}
    rejected: list[RejectedUser] = []
    for place, user in enumerate(given):
        try:
            good[user.id] = _normal(user, most_bytes)
        except InvalidInput as error:
            told = {"code": error.code, "field": error.field, "detail": error.detail, "mend": KINDS[error.code].mend}
            rejected.append(RejectedUser(index=place, id=user.id[:_SHOWN_OF_ID], **told))
    return list(good.values()), rejected


def _normal(user: GivenUser, most_bytes: int) -> Mapping[str, Any]:
    details = {
        name: check(value, f"/{name}") for name, check in _CHECKS.items() if (value := getattr(user, name)) is not None
    }
    attributes = fit_attributes(user.attributes or {}, most_bytes)
    return {"id": fit_user_id(user.id, "/id"), "active": user.active, "attributes": attributes} | details


ENDPOINTS: Final = (
    Endpoint(
        method="POST",
        path="/api/users",
        handler=post_users,
        summary="Store many people",
        tag="users",
        who=SENDERS,
        body=PostUsers,
        answer=UsersPosted,
        problems=(TOO_MANY,),
    ),
)
