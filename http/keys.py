"""API keys, for admins (H1). A secret is shown once, when it is made; what is stored is its hash."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import StringConstraints
from starlette.responses import Response

from tocsin.domain.errors import NotFound
from tocsin.http.caller import ADMINS
from tocsin.http.endpoint import Call, Endpoint
from tocsin.http.idempotency import once
from tocsin.http.problems import BAD_CURSOR, CONFLICT, Problem
from tocsin.http.shapes import Answer, Asked, Line, Listing, Moment, NoQuery, Paging
from tocsin.storage import keyring


class KeyRole(StrEnum):
    """What a key may do."""

    ADMIN = "ADMIN"
    SENDER = "SENDER"
    VIEWER = "VIEWER"


class PostKey(Asked):
    """A key to be made."""

    name: Annotated[Line, StringConstraints(max_length=100)]
    role: KeyRole


class Key(Answer):
    """A key, without its secret."""

    id: UUID
    name: str
    role: KeyRole
    created_at: Moment
    created_by: str | None
    revoked_at: Moment | None


class NewKey(Key):
    """A key with its secret, which is shown this once."""

    secret: str


class Keys(Listing[Key]):
    """The keys, by name; those that were revoked among them."""


async def list_keys(call: Call[None, Paging]) -> Keys:
    """Every key, also those that were revoked."""
    found = await call.context.store.postgres.call(keyring.list_keys, revoked=True)
    first = _place(call.query.cursor)
    page = found[first : first + call.query.limit]
    more = len(found) > first + call.query.limit
    return Keys(data=tuple(map(_shown, page)), next_cursor=str(first + len(page)) if more else None)


async def post_key(call: Call[PostKey, NoQuery]) -> NewKey:
    """Makes a key. Its secret is in the answer and nowhere else."""
    body = call.body

    async def make() -> dict[str, Any]:
        made = await call.context.store.postgres.call(
            keyring.create_key, body.name, body.role.lower(), actor=call.caller.name, cid=call.cid
        )
        return _new(made)

    return NewKey(**await once(call, make))


async def rotate_key(call: Call[None, NoQuery]) -> NewKey:
    """Makes another key of the same name and role, and ends this one."""
    key = call.id("key")

    async def make() -> dict[str, Any]:
        made = await call.context.store.postgres.call(keyring.rotate, key, actor=call.caller.name, cid=call.cid)
        if made is None:
            raise NotFound
        await _forget(call, key)
        return _new(made)

    return NewKey(**await once(call, make))


async def delete_key(call: Call[None, NoQuery]) -> Response:
    """Revokes a key; within half a minute no process takes it any more."""
    key = call.id("key")
    if await call.context.store.postgres.call(keyring.revoke, key, actor=call.caller.name, cid=call.cid) is None:
        raise NotFound
    await _forget(call, key)
    return Response(status_code=204)


async def _forget(call: Call[Any, NoQuery], key: UUID) -> None:
    """Makes this process and the copy in Redis forget a key that was revoked."""
    call.context.authenticator.forget_keys()
    found = await call.context.store.postgres.call(keyring.list_keys, revoked=True)
    for each in found:
        if each.id == key:
            await call.context.store.keys_mirror.forget(each.hash)


def _place(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 8):
        raise Problem(BAD_CURSOR, field="cursor")
    return int(cursor)


def _details(key: keyring.Key) -> dict[str, Any]:
    return {
        "id": str(key.id),
        "name": key.name,
        "role": key.role.upper(),
        "created_at": key.created_ms,
        "created_by": key.created_by,
        "revoked_at": key.revoked_ms,
    }


def _shown(key: keyring.Key) -> Key:
    return Key(**_details(key))


def _new(made: keyring.NewKey) -> dict[str, Any]:
    return _details(made.key) | {"secret": made.secret}


_PATH: Final = "/api/keys"
_TAG: Final = "keys"

ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path=_PATH,
        handler=list_keys,
        summary="List keys",
        tag=_TAG,
        who=ADMINS,
        query=Paging,
        answer=Keys,
        problems=(BAD_CURSOR,),
    ),
    Endpoint(
        method="POST",
        path=_PATH,
        handler=post_key,
        summary="Make a key",
        tag=_TAG,
        who=ADMINS,
        body=PostKey,
        answer=NewKey,
        status=201,
        problems=(CONFLICT,),
        idempotent=True,
    ),
    Endpoint(
        method="POST",
        path=f"{_PATH}/{{key}}/rotate",
        handler=rotate_key,
        summary="Replace a key",
        tag=_TAG,
        who=ADMINS,
        answer=NewKey,
        status=201,
        problems=(CONFLICT,),
        idempotent=True,
    ),
    Endpoint(
        method="DELETE",
        path=f"{_PATH}/{{key}}",
        handler=delete_key,
        summary="Revoke a key",
        tag=_TAG,
        who=ADMINS,
        status=204,
    ),
)
