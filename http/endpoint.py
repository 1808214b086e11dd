"""How an endpoint is declared, and how a request is turned into a call of its handler.

A resource's file holds handlers and a table `ENDPOINTS`; the table makes both the routes and the OpenAPI document.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from tocsin.domain.addresses import USER_ID
from tocsin.domain.errors import InvalidInput, NotFound
from tocsin.http.caller import PUBLIC, Caller, Role
from tocsin.http.context import Context
from tocsin.http.problems import (
    BODY_TOO_LARGE,
    COMPRESSED,
    FORBIDDEN,
    USER_TOKEN_NEEDED,
    WRONG_CONTENT_TYPE,
    Kind,
    Problem,
)
from tocsin.http.refusals import from_validation
from tocsin.http.shapes import Answer, Asked, NoBody, NoQuery, Query

Body = TypeVar("Body", bound=Asked | None)
Asking = TypeVar("Asking", bound=Query)


@dataclass(slots=True)
class Call(Generic[Body, Asking]):
    """One request, validated and authorised."""

    context: Context
    request: Request
    caller: Caller
    cid: str
    body: Body
    raw_body: bytes
    query: Asking
    headers: dict[str, str] = field(default_factory=dict)
    """Headers of the answer."""

    def id(self, name: str) -> UUID:
        """A path parameter that is an id. Raises NotFound for what cannot be one."""
        try:
            return UUID(self.request.path_params[name])
        except ValueError as error:
            raise NotFound from error

    def user(self) -> str:
        """The path parameter `user`. Raises InvalidInput where it cannot be a user id, and NotFound where a user asks
        for another."""
        user: str = self.request.path_params["user"]
        if not USER_ID.fullmatch(user):
            raise InvalidInput("user", "It is not 1 to 128 of letters, digits and . _ : @ + -", code="bad_user_id")
        if self.caller.user not in {None, user}:
            raise NotFound
        return user


Handler = Callable[[Call[Any, Any]], Awaitable[Answer | Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One method of one path, with everything that a caller may send and get."""

    method: str
    path: str
    handler: Handler
    summary: str
    tag: str
    who: frozenset[Role]
    body: type[Asked] | None = None
    body_optional: bool = False
    query: type[Query] | None = NoQuery
    """None: whatever is in the query is let pass."""
    answer: type[BaseModel] | None = None
    status: int = 200
    media_type: str = "application/json"
    problems: tuple[Kind, ...] = ()
    """Those beyond the ones that follow from the rest of the declaration."""
    idempotent: bool = False
    """Takes an Idempotency-Key."""
    parameters: tuple[Mapping[str, Any], ...] = ()
    """OpenAPI descriptions of headers that it takes beside the usual ones."""
    documented: bool = True

    @property
    def bodiless(self) -> bool:
        """Whether a body has to be empty; what is public reads its body itself."""
        return self.body is None and self.method == "POST" and self.who is not PUBLIC


NOBODY: Final = Caller(Role.VIEWER, "", "nobody")
_NO_QUERY: Final = NoQuery()


async def answer(endpoint: Endpoint, context: Context, request: Request) -> Response:
    """Carries out one request. Raises what problems.py turns into a document."""
    caller = NOBODY
    if endpoint.who is not PUBLIC:
        caller = await context.authenticator.authenticate(request.headers.get("authorization"))
        _authorise(endpoint, caller)
    query = _query_of(endpoint, request)
    wanted = endpoint.body or endpoint.bodiless
    raw = await read_body(request, context.settings.http.max_body) if wanted else b""
    call = Call(
        context=context,
        request=request,
        caller=caller,
        cid=request.state.cid,
        body=_body_of(endpoint, request, raw),
        raw_body=raw,
        query=query,
    )
    answered = await endpoint.handler(call)
    if isinstance(answered, Response):
        answered.headers.update(call.headers)
        return answered
    return Response(answered.model_dump_json(), endpoint.status, call.headers, endpoint.media_type)


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body. Raises Problem `body_too_large` past `limit` bytes, before more of it is read."""
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdecimal() and int(length) > limit:
        raise Problem(BODY_TOO_LARGE)
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise Problem(BODY_TOO_LARGE)
        parts.append(part)
    return b"".join(parts)


def _authorise(endpoint: Endpoint, caller: Caller) -> None:
    if caller.role in endpoint.who:
        return
    for_users_only = endpoint.who == {Role.USER}
    raise Problem(USER_TOKEN_NEEDED if for_users_only else FORBIDDEN)


def _query_of(endpoint: Endpoint, request: Request) -> Query:
    if endpoint.query is None:
        return _NO_QUERY
    if endpoint.query is NoQuery and not request.scope["query_string"]:
        return _NO_QUERY
    given = request.query_params.multi_items()
    try:
        return endpoint.query.model_validate(dict(given))
    except ValidationError as error:
        raise from_validation(error, parameter=True) from error


def _body_of(endpoint: Endpoint, request: Request, raw: bytes) -> Asked | None:
    if endpoint.body is None or (endpoint.body_optional and not raw):
        _check_nothing(raw)
        return None
    _check_content_type(request.headers.get("content-type", ""))
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Problem(COMPRESSED)
    try:
        return endpoint.body.read(raw)
    except ValidationError as error:
        raise from_validation(error, endpoint.body.later) from error


def _check_nothing(raw: bytes) -> None:
    try:
        NoBody.read(raw)
    except ValidationError as error:
        raise from_validation(error) from error


def _check_content_type(value: str) -> None:
    kind, _, rest = value.lower().partition(";")
    charset = rest.replace(" ", "").replace('"', "")
    if kind.strip() != "application/json" or charset not in {"", "charset=utf-8", "charset=utf8"}:
        raise Problem(WRONG_CONTENT_TYPE)
