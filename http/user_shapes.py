"""What is taken and answered about people, and how their choices become opt-outs and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import Field, StringConstraints

from tocsin.domain.delivery import Channel
from tocsin.domain.event import Contact
from tocsin.domain.setting_sources import normal_type
from tocsin.http.shapes import Answer, Asked, EventType, Line, Listing, Locale, Moment

_WORDS: Final[Mapping[str, Channel]] = {
    "email": Channel.EMAIL,
    "push": Channel.PUSH,
    "sms": Channel.SMS,
    "in_app": Channel.IN_APP,
}


class PutUser(Asked):
    """Where a person can be reached. What is left out is cleared."""

    email: Annotated[str, StringConstraints(min_length=1, max_length=320)] | None = None
    phone: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    name: Annotated[Line, StringConstraints(max_length=200)] | None = None
    locale: Locale | None = None
    timezone: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    active: bool = True


class User(Answer):
    """A person, as stored."""

    id: str
    email: str | None
    phone: str | None
    name: str | None
    locale: str | None
    timezone: str | None
    active: bool
    devices: int
    version: int


class Users(Listing[User]):
    """A page of people, by id."""


class PutDevice(Asked):
    """A device that takes push messages."""

    token: Annotated[str, StringConstraints(pattern=r"^[!-~]{8,4096}$")]
    kind: Literal["FCM"] = "FCM"


class Device(Answer):
    """A device. Its token is not shown; `id` names it."""

    id: UUID
    kind: Literal["FCM"]
    added_at: Moment


class Devices(Answer):
    """A person's devices."""

    data: tuple[Device, ...]


class Choices(Asked):
    """On or off by channel; what is left out is on."""

    email: bool = True
    push: bool = True
    sms: bool = True
    in_app: bool = True


class PutPreferences(Choices):
    """What a person wants, by channel, and by event type and channel. Off holds for CRITICAL too."""

    types: dict[EventType, Choices] = Field(default_factory=dict, max_length=200)


class ShownChoices(Answer):
    """On or off by channel."""

    email: bool
    push: bool
    sms: bool
    in_app: bool


class Preferences(ShownChoices):
    """What a person wants. `types` names the event types that differ."""

    types: dict[str, ShownChoices]


class UserToken(Answer):
    """A token with which one person sees what is theirs."""

    token: str
    user_id: str
    expires_at: Moment


def opt_outs_of(body: PutPreferences) -> list[str]:
    """The choices as opt-outs: "SMS" for a channel, "SMS@event.approval" for a channel of a type."""
    off = [str(channel) for word, channel in _WORDS.items() if not getattr(body, word)]
    for name, choices in body.types.items():
        off += [f"{channel}@{normal_type(name)}" for word, channel in _WORDS.items() if not getattr(choices, word)]
    return sorted(set(off))


def preferences_of(opt_outs: Iterable[str]) -> Preferences:
    """The reverse of `opt_outs_of`."""
    off = set(opt_outs)
    types = sorted({entry.partition("@")[2] for entry in off if "@" in entry})
    return Preferences(
        **{word: str(channel) not in off for word, channel in _WORDS.items()},
        types={
            name: ShownChoices(**{word: f"{channel}@{name}" not in off for word, channel in _WORDS.items()})
            for name in types
        },
    )


def user_of(contact: Contact) -> User:
    """A stored person, as shown."""
    return User(devices=len(contact.tokens), **contact.model_dump(exclude={"tokens", "opt_outs"}))
