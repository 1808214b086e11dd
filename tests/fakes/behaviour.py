"""What a fake can be asked to do, and what the contract suite needs of one."""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Any, Protocol
from uuid import uuid4

from tocsin.channels.contract import Message
from tocsin.domain.delivery import Channel
from tocsin.domain.plan import Priority

SECRET = "s3cr3t-of-the-account-0123456789"


class Behaviour(Enum):
    """How the next messages are met."""

    TAKE = auto()
    REFUSE = auto()
    """A definite no, for good."""
    FAIL = auto()
    """An error inside the provider, definitely not sent."""
    BUSY = auto()
    """Too many at once; HTTP says to come back in 7 seconds."""
    HANG = auto()
    """Takes the message and never answers."""
    DROP = auto()
    """Takes the message and closes the connection."""
    GARBAGE = auto()
    """Takes the message and answers with nonsense."""
    ECHO = auto()
    """Refuses, and says everything it was told in its error."""


class Fake(Protocol):
    """One provider's stand-in."""

    behaviour: Behaviour
    taken: list[dict[str, Any]]
    """What the provider stored, with `delivery` and `attempt` where they travel, and `text`."""
    asked: int
    """How many messages were offered, whatever became of them."""
    most_at_once: int
    secrets: tuple[str, ...]

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def table(self) -> Mapping[str, Any]:
        """The provider's settings that lead here."""
        ...

    def wrong_credentials(self) -> Mapping[str, Any]: ...


ADDRESSES = {Channel.EMAIL: "ann.private@example.org", Channel.SMS: "+14155550101", Channel.PUSH: "1 device"}
TOKEN = "dEvIcE-" + "t0ken" * 20


def a_message(channel: Channel, **changes: Any) -> Message:
    """An ordinary message on `channel`."""
    values: dict[str, Any] = {
        "delivery": uuid4(),
        "notification": uuid4(),
        "event": uuid4(),
        "step": 1,
        "attempt": 1,
        "channel": channel,
        "user": "ann",
        "cid": "c-1",
        "address": ADDRESSES[channel],
        "tokens": (TOKEN,) if channel is Channel.PUSH else (),
        "title": "Approved",
        "text": "Your event has been approved",
        "priority": Priority.HIGH,
        "event_type": "event.approval",
    }
    return Message(**(values | changes))
