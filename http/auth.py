"""Who sent a request: an API key for servers, a signed JWT for end users (H1).

A key is looked up by its hash and the answer kept for half a minute. While Postgres is away an answer of any age
serves, or the copy of it in Redis, so that events go on being taken. A token that was found good is good until it ends.
"""

import hashlib
import hmac
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import jwt
from jwt.exceptions import ExpiredSignatureError, PyJWTError

from tocsin.domain.addresses import USER_ID
from tocsin.domain.errors import PostgresAway, RedisAway
from tocsin.domain.settings import Settings
from tocsin.http.caller import Caller, Role
from tocsin.http.problems import (
    BEARER_MISSING,
    TOKEN_EXPIRED,
    TOKEN_INVALID,
    TOKEN_MISSING,
    TOKENS_NOT_CONFIGURED,
    Problem,
)
from tocsin.storage.keyring import find_by_hash
from tocsin.storage.store import Store

_FRESH_S: Final = 30.0
_MOST_KEYS: Final = 10_000
_MOST_TOKENS: Final = 10_000


@dataclass(frozen=True, slots=True)
class _Known:
    """What a key's hash stands for, and when that was looked up on the monotonic clock."""

    caller: Caller
    at_s: float


class Authenticator:
    """Turns an Authorization header into a Caller."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._auth = settings.auth
        self._store = store
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._tokens: OrderedDict[str, tuple[Caller, int]] = OrderedDict()
        """Whose each token is, by its hash, and when it ends, in seconds since 1970."""
        self._secrets = _secrets(settings)

    async def authenticate(self, header: str | None) -> Caller:
        """The caller. Raises Problem with status 401, and PostgresAway where a key cannot be judged."""
        if not header or not header.strip():
            raise Problem(TOKEN_MISSING)
        scheme, _, token = header.strip().partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer":
            raise Problem(BEARER_MISSING)
        if not token:
            raise Problem(TOKEN_MISSING)
        first = self._auth.admin_key
        if first and hmac.compare_digest(first.encode(), token.encode()):
            return Caller(Role.ADMIN, "admin", "key:admin")
        return self._by_jwt(token) if token.count(".") == 2 else await self._by_key(token)

    def mint(self, user: str, now_s: int) -> tuple[str, int]:
        """A token for `user`, and when it ends in ms. Raises Problem where no secret is set to sign it with."""
        secret = self._secrets.get("HS256")
        if secret is None:
            raise Problem(TOKENS_NOT_CONFIGURED)
        ends_s = now_s + self._auth.user_token_ttl // 1000
        claims: dict[str, Any] = {"sub": user, "iat": now_s, "exp": ends_s}
        if self._auth.jwt_audience:
            claims["aud"] = self._auth.jwt_audience
        if self._auth.jwt_issuer:
            claims["iss"] = self._auth.jwt_issuer
        return jwt.encode(claims, secret, algorithm="HS256"), ends_s * 1000

    def forget_keys(self) -> None:
        """Looks every key up anew, after one was revoked."""
        self._known.clear()

    async def _by_key(self, secret: str) -> Caller:
        hashed = hashlib.sha256(secret.encode()).hexdigest()
        known = self._known.get(hashed)
        if known and time.monotonic() - known.at_s < _FRESH_S:
            return known.caller
        try:
            found = await self._look_up(hashed)
        except PostgresAway:
            found = known.caller if known else await self._mirrored(hashed)
            if found is None:
                raise
        return self._keep(hashed, found)

    async def _look_up(self, hashed: str) -> Caller | None:
        key = await self._store.postgres.call(find_by_hash, hashed)
        if key is None:
            return None
        caller = Caller(Role(key.role.upper()), key.name, f"key:{key.id}")
        with suppress(RedisAway):
            known = {"role": caller.role.value, "name": caller.name, "identity": caller.identity}
            await self._store.keys_mirror.keep(hashed, known)
        return caller

    async def _mirrored(self, hashed: str) -> Caller | None:
        try:
            known = await self._store.keys_mirror.find(hashed)
        except RedisAway:
            return None
        return None if known is None else Caller(Role(known["role"]), known["name"], known["identity"])

    def _keep(self, hashed: str, caller: Caller | None) -> Caller:
        if caller is None:
            self._known.pop(hashed, None)
            raise Problem(TOKEN_INVALID)
        self._known[hashed] = _Known(caller, time.monotonic())
        while len(self._known) > _MOST_KEYS:
            self._known.popitem(last=False)
        return caller

    def _by_jwt(self, token: str) -> Caller:
        hashed = hashlib.sha256(token.encode()).hexdigest()
        known = self._tokens.get(hashed)
        if known and time.time() < known[1]:
            return known[0]
        caller, ends_s = self._judged(token)
        self._tokens[hashed] = caller, ends_s
        while len(self._tokens) > _MOST_TOKENS:
            self._tokens.popitem(last=False)
        return caller

    def _judged(self, token: str) -> tuple[Caller, int]:
        """Whose a token is, and when it ends."""
        try:
            claims = self._claims(token)
        except ExpiredSignatureError as error:
            raise Problem(TOKEN_EXPIRED) from error
        except PyJWTError as error:
            raise Problem(TOKEN_INVALID) from error
        user = claims["sub"]
        if not USER_ID.fullmatch(user):
            raise Problem(TOKEN_INVALID)
        return Caller(Role.USER, user, f"user:{user}"), int(claims["exp"])

    def _claims(self, token: str) -> dict[str, Any]:
        # The header chooses only among the algorithms that are configured, each with a key of its own: a public key can
        # never be taken for the secret of an HMAC.
        algorithm = jwt.get_unverified_header(token).get("alg")
        if algorithm not in self._secrets:
            raise Problem(TOKEN_INVALID)
        claims: dict[str, Any] = jwt.decode(
            token,
            self._secrets[algorithm],
            algorithms=[algorithm],
            audience=self._auth.jwt_audience,
            issuer=self._auth.jwt_issuer,
            options={"require": ["exp", "sub"], "verify_aud": bool(self._auth.jwt_audience)},
        )
        return claims


def _secrets(settings: Settings) -> dict[str, str]:
    given = {"HS256": settings.auth.jwt_secret, "RS256": settings.auth.jwt_public_key}
    return {algorithm: secret for algorithm, secret in given.items() if secret}
