"""Idempotency-Key: a request that is repeated with it is done once, and answered as the first time (R9)."""

import base64
import hashlib
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

from cryptography.fernet import Fernet, InvalidToken

from tocsin.domain.errors import RedisAway
from tocsin.http.endpoint import Call
from tocsin.http.problems import BAD_IDEMPOTENCY_KEY, Problem
from tocsin.storage.accepted import Idempotency

HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotency-Replayed"
_KEY: Final = re.compile(r"[!-~]{1,255}")


def idempotency_of(call: Call[Any, Any], place: str = "", answer: dict[str, Any] | None = None) -> Idempotency | None:
    """The caller's key for this request; `place` tells the parts of one request apart. None without a key. Raises
    Problem where it is not in the right form."""
    key = call.request.headers.get(HEADER)
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        raise Problem(BAD_IDEMPOTENCY_KEY, field=HEADER)
    path = call.request.url.path
    hashed = hashlib.sha256(path.encode() + b"\n" + call.raw_body).hexdigest()
    return Idempotency(f"{call.caller.identity}{place}", key, hashed, answer)


async def once_if_known(call: Call[Any, Any], make: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    """As `once`, for what does no harm when it is done again: with Redis away it is done. Raises KeyMismatch and
    StillRunning."""
    made: list[dict[str, Any]] = []
    raised: list[RedisAway] = []

    async def make_and_keep() -> dict[str, Any]:
        try:
            made.append(await make())
        except RedisAway as error:
            raised.append(error)
            raise
        return made[0]

    try:
        return await once(call, make_and_keep)
    except RedisAway:
        if raised:
            raise
        return made[0] if made else await make()


async def once(call: Call[Any, Any], make: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    """What `make` answers, or answered the first time. Raises KeyMismatch, StillRunning and RedisAway.

    The answer may hold a secret that is shown once, so it is kept sealed with the caller's own token, which is kept
    nowhere."""
    given = idempotency_of(call, ":" + call.request.scope["route"].path)
    if given is None:
        return await make()
    repeats = call.context.store.repeats
    earlier = await repeats.begin(given)
    if earlier is not None:
        call.headers[REPLAYED] = "true"
        return _opened(call, earlier)
    try:
        answer = await make()
    except BaseException:
        await repeats.abandon(given)
        raise
    await repeats.finish(given, {"sealed": _seal(call).encrypt(json.dumps(answer).encode()).decode()})
    return answer


def _opened(call: Call[Any, Any], kept: dict[str, Any]) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(_seal(call).decrypt(kept["sealed"].encode()))
    except (InvalidToken, KeyError) as error:
        # A user's tokens change while the user is the same; what was sealed with another one stays closed.
        raise Problem(BAD_IDEMPOTENCY_KEY, "The first request was made with another token.", field=HEADER) from error
    return answer


def _seal(call: Call[Any, Any]) -> Fernet:
    token = call.request.headers.get("authorization", "")
    return Fernet(base64.urlsafe_b64encode(hashlib.sha256(b"tocsin idempotency\n" + token.encode()).digest()))
