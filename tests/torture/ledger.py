"""What the providers, the driver and the schedule of faults note down for themselves, independent of Tocsin.

All times are ms of this machine's clock, which is Redis's too: TIME is the same clock.
"""

import time
from dataclasses import dataclass, field
from typing import Literal

Told = Literal["yes", "no", "nothing"]
"""What the client was answered: taken, refused, or it never heard."""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class Call:
    """One message that was brought to a provider. `to` tells a push's devices apart."""

    channel: str
    delivery: str
    attempt: int
    to: str
    at_ms: int
    accepted_ms: int | None = None
    told: Told = "nothing"
    provider_id: str | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt that Tocsin said it has."""

    delivery: str
    attempt: int
    word: str
    answered_ms: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """An event that was answered with 202."""

    id: str
    durability: str
    answered_ms: int
    recipients: int
    key: str


@dataclass(frozen=True, slots=True)
class Repeat:
    """A request that was sent again under its Idempotency-Key, and what that was answered with."""

    event: str
    answered: str
    durability: str
    answered_ms: int


@dataclass(frozen=True, slots=True)
class OptOut:
    """A channel that a person had certainly switched off: from the answer until it was asked to be on again."""

    user: str
    channel: str
    from_ms: int
    until_ms: int


@dataclass(slots=True)
class Fault:
    """What was done to whom, and until when."""

    kind: str
    target: str
    at_ms: int
    until_ms: int = 0


@dataclass(slots=True)
class Ledger:
    """Everything noted in a run."""

    calls: list[Call] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    accepted: dict[str, Accepted] = field(default_factory=dict)
    reads: dict[str, int] = field(default_factory=dict)
    """When the first answer came that a notification is read."""
    cancels: dict[str, int] = field(default_factory=dict)
    """When the answer came that an event is stopped."""
    opt_outs: list[OptOut] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    repeats: list[Repeat] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)
    """What should not happen and is nobody's delivery: a process that fell over or did not stop in time."""
    given_up: list[str] = field(default_factory=list)
    """Requests that were not done, one by one."""
    refused: dict[str, int] = field(default_factory=dict)
    """Requests that were not done, by what they were answered."""
