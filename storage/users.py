"""People: where they can be reached, their devices, and what they switched off.

Every change gives a higher version, which copies elsewhere go by. Run by Postgres.call.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from peewee import SQL, fn

from tocsin.domain.errors import NotFound
from tocsin.domain.event import Contact
from tocsin.storage.database import cursor, database
from tocsin.storage.models import NEXT_VERSION, Device, Preferences, User
from tocsin.storage.moments import ms_of

DETAILS: Final = ("email", "phone", "name", "locale", "timezone")

# A person who is known only by preferences is judged by them, and has no address. How many are wanted is kept from the
# planner: of a hundred it would rather read a table of ten thousand than look each up, which takes three times as long.
_CONTACTS: Final = """
select wanted.id, u.email, u.phone, u.name, u.locale, u.timezone, coalesce(u.active, true),
  coalesce(p.opt_outs, '[]'), greatest(u.version, p.version),
  array(select token from devices where user_id = wanted.id order by created_at, id)
from unnest(array(select json_array_elements_text(%s))) with ordinality as wanted (id, place)
left join users u on u.id = wanted.id
left join preferences p on p.user_id = wanted.id
where u.id is not null or p.user_id is not null
order by wanted.place
"""


_IMPORT: Final = f"""
insert into users as known (id, {", ".join(DETAILS)}, active, attributes)
select id, {", ".join(DETAILS)}, coalesce(active, true), coalesce(attributes, '{{}}')
from json_to_recordset(%s) as given ({" text, ".join(("id", *DETAILS))} text, active boolean, attributes jsonb)
order by id
on conflict (id) do update set {", ".join(f"{name} = excluded.{name}" for name in (*DETAILS, "active", "attributes"))},
  version = excluded.version, updated_at = now()
"""  # noqa: S608  # made of constants

_CHANGED: Final = """
select id from users where updated_at >= tocsin_time(%(since)s::bigint) and id > %(after)s
union
select user_id from preferences where updated_at >= tocsin_time(%(since)s::bigint) and user_id > %(after)s
order by 1 limit %(limit)s
"""


@dataclass(frozen=True, slots=True)
class StoredDevice:
    """A device of a person; its token is a secret."""

    id: UUID
    kind: str
    token: str
    created_ms: int


@dataclass(frozen=True, slots=True)
class DeviceAdded:
    """A device, and whose contact changed: its user's, and that of who had the same installation before."""

    device: StoredDevice
    changed: tuple[str, ...]


def contacts(users: Sequence[str]) -> list[Contact]:
    """The contacts of those of `users` that are stored, or of whom at least preferences are, in the given order."""
    with cursor() as query:
        query.execute(_CONTACTS, (json.dumps(users, ensure_ascii=False),))
        return [_contact(row) for row in query.fetchall()]


def known(users: Sequence[str]) -> set[str]:
    """Those of `users` that are stored."""
    return set(_column(User.select(User.id).where(User.id.in_(list(users)))))


def get_user(user: str) -> Contact | None:
    """The contact of a stored user."""
    return next(iter(contacts([user])), None) if known([user]) else None


def put_user(
    user: str, *, active: bool = True, attributes: Mapping[str, Any] | None = None, **details: str | None
) -> Contact:
    """Stores a person; of DETAILS what is left out is cleared, and so are attributes. Answers the contact as it is
    now."""
    given: dict[str, Any] = {name: details.get(name) for name in DETAILS} | {"active": active}
    given["attributes"] = dict(attributes or {})
    with database.atomic():
        User.insert(id=user, **given).on_conflict(
            conflict_target=[User.id],
            update={User.version: NEXT_VERSION, User.updated_at: fn.now(), **given},
        ).execute()
        (contact,) = contacts([user])
    return contact


def delete_user(user: str) -> bool:
    """Removes a person with devices, preferences, memberships and subscriptions; False when there was none."""
    with database.atomic():
        Preferences.delete().where(Preferences.user_id == user).execute()
        with cursor() as query:
            query.execute("delete from members where user_id = %s", (user,))
            query.execute("delete from subscriptions where user_id = %s", (user,))
        return bool(User.delete().where(User.id == user).execute())


def list_users(limit: int, after: str = "") -> list[Contact]:
    """Up to `limit` people by id, those after `after`."""
    return contacts(_column(User.select(User.id).where(User.id > after).order_by(User.id).limit(limit)))


def attributes_of(users: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What is known of each of `users` beside contact details."""
    with cursor() as query:
        query.execute("select id, attributes from users where id = any(%s)", (list(users),))
        return dict(query.fetchall())


def import_users(people: Iterable[Mapping[str, Any]]) -> list[str]:
    """Stores many people at once; each has `id` and any of DETAILS, `active` and `attributes`, and what it has not is
    cleared. Answers their ids in order."""
    rows = {person["id"]: person for person in people}
    ordered = sorted(rows)
    with cursor() as query:
        query.execute(_IMPORT, (json.dumps([rows[user] for user in ordered], ensure_ascii=False),))
    return ordered


def put_device(user: str, token: str, kind: str = "fcm") -> DeviceAdded:
    """Stores a device of a person. A token stands for one installation, so it leaves whoever had it before. Raises
    NotFound for a person who is not stored."""
    with database.atomic():
        if not known([user]):
            raise NotFound("there is no such user")
        before = Device.select(Device.user_id).where(Device.token == token).scalar()
        Device.insert(user_id=user, kind=kind, token=token).on_conflict(
            conflict_target=[Device.token], preserve=[Device.user_id, Device.kind]
        ).execute()
        changed = tuple(sorted({user, before or user}))
        _renew(changed)
        return DeviceAdded(_device(Device.get(Device.token == token)), changed)


def delete_device(user: str, device: UUID) -> bool:
    """Removes a device of a person; False when the person has no such device."""
    with database.atomic():
        gone = Device.delete().where(Device.id == device, Device.user_id == user).execute()
        _renew([user] if gone else [])
    return bool(gone)


def list_devices(user: str) -> list[StoredDevice]:
    """The devices of a person, the oldest first."""
    return [
        _device(row) for row in Device.select().where(Device.user_id == user).order_by(Device.created_at, Device.id)
    ]


def delete_tokens(user: str, tokens: Sequence[str]) -> int:
    """Removes device tokens of a person that will never work again; answers how many there were."""
    with database.atomic():
        gone = int(Device.delete().where(Device.user_id == user, Device.token.in_(list(tokens))).execute())
        _renew([user] if gone else [])
    return gone


def get_preferences(user: str) -> tuple[str, ...]:
    """What a person switched off; nothing where nothing is stored."""
    row = Preferences.get_or_none(Preferences.user_id == user)
    return tuple(row.opt_outs) if row else ()


def put_preferences(user: str, opt_outs: Iterable[str]) -> Contact:
    """Stores what a person switched off, in place of what was; also for one who is known only inline."""
    off = sorted(set(opt_outs))
    with database.atomic():
        Preferences.insert(user_id=user, opt_outs=off).on_conflict(
            conflict_target=[Preferences.user_id],
            preserve=[Preferences.opt_outs],
            update={Preferences.version: NEXT_VERSION, Preferences.updated_at: fn.now()},
        ).execute()
        (contact,) = contacts([user])
    return contact


def all_opt_outs(after: str, limit: int) -> list[Contact]:
    """Up to `limit` people who switched something off, by id, those after `after`."""
    somebody = Preferences.select(Preferences.user_id).where(SQL("opt_outs <> '[]'"), Preferences.user_id > after)
    return contacts(_column(somebody.order_by(Preferences.user_id).limit(limit)))


def changed_since(since_ms: int, limit: int, after: str = "") -> list[Contact]:
    """Up to `limit` people whose details, devices or preferences changed since `since_ms`, by id, after `after`."""
    with cursor() as query:
        query.execute(_CHANGED, {"since": since_ms, "after": after, "limit": limit})
        users = [user for (user,) in query.fetchall()]
    return contacts(users)


def clock_ms() -> int:
    """The time by Postgres's clock, which stamps changes."""
    with cursor() as query:
        query.execute("select (extract(epoch from clock_timestamp()) * 1000)::bigint")
        return int(query.fetchone()[0])


def _column(query: Any) -> list[str]:
    return [value for (value,) in query.tuples()]


def _renew(users: Sequence[str]) -> None:
    if users:
        User.update(version=NEXT_VERSION, updated_at=fn.now()).where(User.id.in_(list(users))).execute()


def _contact(row: Sequence[Any]) -> Contact:
    user, email, phone, name, locale, timezone, active, opt_outs, version, tokens = row
    return Contact(
        id=user,
        email=email,
        phone=phone,
        name=name,
        locale=locale,
        timezone=timezone,
        tokens=tuple(tokens),
        active=active,
        opt_outs=tuple(opt_outs),
        version=version,
    )


def _device(row: Device) -> StoredDevice:
    return StoredDevice(row.id, row.kind, row.token, ms_of(row.created_at))
