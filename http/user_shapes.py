"""What is taken and answered about people, and how their choices become opt-outs and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import Field, JsonValue, StringConstraints

from tocsin.domain.delivery import Channel
from tocsin.domain.event import Contact
from tocsin.domain.setting_sources import normal_type
from tocsin.http.shapes import Answer, Asked, EventType, Line, Listing, Locale, Moment, limited

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
    attributes: dict[str, JsonValue] | None = None
    """What is known of the person: texts, numbers, true or false, or lists of those. Events are posted to filters over
    them."""


class GivenUser(Asked):
    """One of many people to be stored. One that is wrong is left out and listed, so no form is asked of a text here: it
    would refuse the others too."""

    id: str
    email: str | None = None
    phone: str | None = None
    name: str | None = None
    locale: str | None = None
    timezone: str | None = None
    active: bool = True
    attributes: dict[str, JsonValue] | None = None


class PostUsers(Asked):
    """Many people, each as a whole: who is known already is replaced."""

    users: Annotated[tuple[GivenUser, ...], Field(min_length=1, json_schema_extra=limited("users"))]


class RejectedUser(Answer):
    """A person who was left out, by the place in the request: which field is wrong, why, and what to do."""

    index: int
    id: str
    code: str
    field: str
    detail: str
    mend: str


class UsersPosted(Answer):
    """What became of the people."""

    success: Literal[True] = True
    stored: int
    rejected: tuple[RejectedUser, ...]


class User(Answer):
    """A person, as stored."""

    id: str
    email: str | None
    phone: str | None
    name: str | None
    locale: str | None
    timezone: str | None
    active: bool
    attributes: dict[str, JsonValue]
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


def user_of(contact: Contact, attributes: Mapping[str, Any]) -> User:
    """A stored person, as shown."""
    told = contact.model_dump(exclude={"tokens", "opt_outs"})
    return User(devices=len(contact.tokens), attributes=dict(attributes), **told)
