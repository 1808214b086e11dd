"""Ids are derived, never drawn: the same work done twice makes the same rows (docs/adr/0001).

An event's id is a UUIDv7 of its start. The ids below it are UUIDv8: the event's 48-bit millisecond prefix and a BLAKE2b
of what they stand for, keyed with the id above them, so that rows of one event lie together in every index and nobody
who lacks the parent's id can guess a child's.
"""

import hashlib
from collections.abc import Callable
from uuid import UUID

_PREFIX_BYTES = 6
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def event_id(start_ms: int, randomness: bytes) -> UUID:
    """The UUIDv7 of an event that starts at `start_ms` (milliseconds since 1970), with 10 bytes of `randomness`."""
    return _stamp(start_ms.to_bytes(_PREFIX_BYTES, "big") + randomness[:10], version=7)


def notification_id(event: UUID, user: str) -> UUID:
    """The UUIDv8 of `event` for `user`."""
    return UUID(notification_id_text(str(event), user))


def notification_id_text(event: str, user: str) -> str:
    """As `notification_id`, from text to text."""
    return _derive(event, user.encode())


def notification_ids(event: str) -> Callable[[str], str]:
    """As `notification_id_text`, for many users of one event: routing a million people makes a million of them."""
    keyed, head = _keyed(event), event[:13]

    def of(user: str) -> str:
        made = keyed.copy()
        made.update(user.encode())
        return _placed(head, made.hexdigest())

    return of


def delivery_id(notification: UUID, step: int, channel: str) -> UUID:
    """The UUIDv8 of one step of a notification's plan."""
    return UUID(delivery_id_text(str(notification), step, channel))


def delivery_id_text(notification: str, step: int, channel: str) -> str:
    """As `delivery_id`, from text to text: storing a million rows makes a million of them."""
    return _derive(notification, f"{step}:{channel}".encode())


def start_ms(identifier: UUID) -> int:
    """The millisecond that every id of one event begins with."""
    return int.from_bytes(identifier.bytes[:_PREFIX_BYTES], "big")


def _derive(parent: str, name: bytes) -> str:
    return _placed(parent[:13], _keyed(parent, name).hexdigest())


def _keyed(parent: str, name: bytes = b"") -> "hashlib.blake2b":
    return hashlib.blake2b(name, key=bytes.fromhex(parent.replace("-", "")), digest_size=10, person=b"tocsin")


def _placed(head: str, digest: str) -> str:
    """The digest with version 8 and the variant of RFC 9562 in their places."""
    return f"{head}-8{digest[1:4]}-{_VARIANT[digest[4]]}{digest[5:8]}-{digest[8:]}"


def _stamp(raw: bytes, *, version: int) -> UUID:
    number = int.from_bytes(raw, "big")
    number = number & ~(0xF << 76) | version << 76
    number = number & ~(0x3 << 62) | 0x2 << 62
    return UUID(int=number)
