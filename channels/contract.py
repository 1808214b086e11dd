"""What every provider file offers, and what it is given and answers.

A provider is one module of this package that holds a `PROVIDER`. `registry.py` finds it; nothing else names it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tocsin.domain.delivery import Channel, Reason, Status
from tocsin.domain.plan import Priority
from tocsin.domain.rate import Rate

_BURSTS_A_SECOND = 10
"""Where no burst is set, a provider gets at once what its rate is in a tenth of a second."""


@dataclass(frozen=True, slots=True)
class Message:
    """One attempt at one delivery, with everything a provider needs."""

    delivery: UUID
    notification: UUID
    event: UUID
    step: int
    attempt: int
    channel: Channel
    user: str
    cid: str
    address: str
    """An email address or an E.164 number; for push the first token."""
    tokens: tuple[str, ...]
    """The device tokens of a push; empty on other channels."""
    title: str | None
    text: str
    priority: Priority
    event_type: str
    name: str | None = None
    locale: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


class OutcomeKind(StrEnum):
    """A send ends in one of three ways, or nobody knows."""

    SENT = "sent"
    TEMPORARY = "temporary"
    PERMANENT = "permanent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended. `message` is the provider's text, without secrets and addresses, ≤ 512 characters."""

    kind: OutcomeKind
    reason: Reason | None = None
    provider_id: str | None = None
    provider_status: str | None = None
    code: str | None = None
    message: str | None = None
    retry_after_s: float | None = None
    segments: int | None = None
    price: str | None = None
    dead_tokens: tuple[str, ...] = ()
    """Device tokens that the provider says will never work again."""


class Sender(Protocol):
    """A provider ready to send. Made on, and used from, one event loop."""

    channel: Channel
    provider: str
    """The name shown: smtp, twilio, fcm; "sandbox" when it sends to the sandbox."""
    configured: bool
    """False without credentials or SDK: nothing is then sent and deliveries fail with `not_configured`."""
    concurrency: int
    """How many sends may be under way at once."""
    timeout_s: float
    """The longest that one `send` may take, whatever the provider does."""

    async def send(self, message: Message) -> Outcome:
        """Carry out one attempt. Never raises for what a provider does; an exception is a defect."""
        ...

    async def check(self) -> None:
        """Log in without sending anything, for `tocsin doctor`. Raises SettingError with the mend."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


@dataclass(frozen=True, slots=True)
class Known:
    """A message that a provider has, as it says when it is asked. `status` and `reason` are what a receipt with its
    `word` would say; `at_ms` is when the provider made it, by its own clock."""

    provider_id: str
    status: Status
    word: str
    at_ms: int
    reason: Reason | None = None
    code: str | None = None
    message: str | None = None
    segments: int | None = None
    price: str | None = None


@runtime_checkable
class Askable(Protocol):
    """What a sender may offer besides: it can be asked what became of a message. All raise ProviderAway."""

    gives_receipts: bool
    """Whether it tells of each message afterwards, as it is set up here."""

    async def fetch(self, provider_id: str) -> Known | None:
        """The message of that id; None where the provider has none."""
        ...

    async def search(self, message: Message, from_ms: int, to_ms: int) -> Sequence[Known]:
        """The messages with the To, From and body that `message` would have, made between those times."""
        ...

    async def count(self, from_ms: int, to_ms: int) -> int | None:
        """How many messages the provider has of that time; None where there are too many to count them so."""
        ...


@runtime_checkable
class Limited(Protocol):
    """What a sender may offer besides: it is given no more than a set number of messages a second."""

    rate: Rate | None
    """None where nothing is set."""


def rate_of(sender: Sender) -> Rate | None:
    """How much a sender is given; None without a limit."""
    return sender.rate if isinstance(sender, Limited) and sender.configured else None


class ProviderTable(BaseModel):
    """A provider's own settings; "" stands for "not set". Every field has a default, and is in settings.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _leave_out_what_is_not_set(cls, table: Any) -> Any:
        if isinstance(table, Mapping):
            return {name: value for name, value in table.items() if value not in ("", None)}
        return table


class RatedTable(ProviderTable):
    """The table of a provider whose rate can be set."""

    rate: float | None = Field(default=None, ge=0.001, le=100_000)
    burst: int | None = Field(default=None, ge=1, le=100_000)

    @model_validator(mode="after")
    def _has_a_rate_for_its_burst(self) -> RatedTable:
        if self.burst is not None and self.rate is None:
            raise ValueError("burst is set and rate is not; set rate with it, or unset burst")
        return self

    @property
    def limit(self) -> Rate | None:
        """Both as one; None without a rate."""
        if self.rate is None:
            return None
        return Rate(self.rate, self.burst or max(1, math.ceil(self.rate / _BURSTS_A_SECOND)))


@dataclass(frozen=True, slots=True)
class Provider:
    """How a provider is found and made. `section` is its table in settings.toml, such as "sms.twilio"."""

    name: str
    channel: Channel
    section: str
    settings: type[ProviderTable]
    build: Callable[[Any, BuildContext], Sender]


@dataclass(frozen=True, slots=True)
class BuildContext:
    """What a provider may need beside its own settings."""

    sandbox: bool
    public_url: str | None
    """Where providers reach Tocsin's callbacks, without a slash at the end; None when not reachable from outside."""
    brand: str
    """The name shown as the sender of mail."""
    postal_address: str | None
    emoji: Mapping[Priority, str]
    """The SMS prefix by priority; empty for none."""
    max_segments: int = 1
    """How many segments an SMS may take."""
    push_characters: int = 150
    """How many characters the text of a push may have."""
