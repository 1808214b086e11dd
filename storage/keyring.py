"""API keys: made once, shown once, kept as a hash. Making and revoking are audited in the same transaction."""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from peewee import IntegrityError, fn

from tocsin.domain.errors import Conflict
from tocsin.storage.audit import audit
from tocsin.storage.database import database
from tocsin.storage.models import ApiKey
from tocsin.storage.moments import ms_of

PREFIX: Final = "tk_"
_SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key; times in ms. `role` is admin, sender or viewer."""

    id: UUID
    name: str
    role: str
    hash: str
    created_ms: int
    created_by: str | None
    revoked_ms: int | None


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key and its secret, which nobody can learn again."""

    key: Key
    secret: str


def create_key(name: str, role: str, *, actor: str, cid: str | None = None) -> NewKey:
    """Makes a key. Raises Conflict while another one of that name is not revoked."""
    secret = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    return NewKey(keep_key(name, role, secret, actor=actor, cid=cid), secret)


def keep_key(name: str, role: str, secret: str, *, actor: str, cid: str | None = None) -> Key:
    """Stores a key whose secret the caller has. Raises Conflict as `create_key` does."""
    try:
        with database.atomic():
            made = ApiKey.insert(name=name, role=role, hash=hash_of(secret), created_by=actor).execute()
            audit("key.created", actor, cid, {"key": str(made), "name": name, "role": role})
            return _key(ApiKey.get_by_id(made))
    except IntegrityError as error:
        raise Conflict("a key of that name is in use") from error


def find_by_hash(hashed: str) -> Key | None:
    """The key with this hash of its secret, unless it was revoked."""
    row = ApiKey.get_or_none(ApiKey.hash == hashed, ApiKey.revoked_at.is_null())
    return _key(row) if row else None


def list_keys(*, revoked: bool = False) -> list[Key]:
    """The keys by name; on demand those that were revoked too."""
    rows = ApiKey.select().order_by(ApiKey.name, ApiKey.created_at)
    return [_key(row) for row in (rows if revoked else rows.where(ApiKey.revoked_at.is_null()))]


def revoke(key: UUID, *, actor: str, cid: str | None = None) -> Key | None:
    """Ends a key; None when there is no such key. One that was revoked before stays as it was."""
    with database.atomic():
        ended = ApiKey.update(revoked_at=fn.now()).where(ApiKey.id == key, ApiKey.revoked_at.is_null()).execute()
        if ended:
            audit("key.revoked", actor, cid, {"key": str(key)})
        row = ApiKey.get_or_none(ApiKey.id == key)
    return _key(row) if row else None


def rotate(key: UUID, *, actor: str, cid: str | None = None) -> NewKey | None:
    """Ends a key and makes another of its name and role; None when there is no such key. Raises Conflict for one that
    was revoked before."""
    with database.atomic():
        row = ApiKey.get_or_none(ApiKey.id == key)
        if row is None:
            return None
        if row.revoked_at is not None:
            raise Conflict("the key was revoked")
        revoke(key, actor=actor, cid=cid)
        return create_key(row.name, row.role, actor=actor, cid=cid)


def hash_of(secret: str) -> str:
    """What is kept of a secret. It has 256 bits of randomness, so a plain SHA-256 cannot be searched."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _key(row: ApiKey) -> Key:
    return Key(
        id=row.id,
        name=row.name,
        role=row.role,
        hash=row.hash,
        created_ms=ms_of(row.created_at),
        created_by=row.created_by,
        revoked_ms=ms_of(row.revoked_at),
    )
