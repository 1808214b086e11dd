"""Who is calling, and what each may do (H1)."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """What a token may do: an admin everything, a sender post and read, a viewer read, a user see only their own."""

    ADMIN = "ADMIN"
    SENDER = "SENDER"
    VIEWER = "VIEWER"
    USER = "USER"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent the request. `identity` tells callers apart and is stable: "key:<id>" or "user:<id>"."""

    role: Role
    name: str
    identity: str

    @property
    def user(self) -> str | None:
        """The user id of an end user; None for an API key."""
        return self.name if self.role is Role.USER else None


ADMINS: Final = frozenset({Role.ADMIN})
SENDERS: Final = frozenset({Role.ADMIN, Role.SENDER})
VIEWERS: Final = frozenset({Role.ADMIN, Role.SENDER, Role.VIEWER})
USERS: Final = frozenset({Role.USER})
SENDERS_AND_USER: Final = SENDERS | USERS
VIEWERS_AND_USER: Final = VIEWERS | USERS
PUBLIC: Final[frozenset[Role]] = frozenset()
"""No token is asked for."""
