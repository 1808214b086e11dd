"""What a caller posted: the event, as it is kept in Redis and in Postgres, and the people it is for."""

from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from tocsin.domain.audience import Audience
from tocsin.domain.delivery import Channel
from tocsin.domain.plan import Priority, Step, Strategy


class Source(StrEnum):
    """Where an event came from (E1)."""

    API_ACTION = "api_action"
    WORKER_JOB = "worker_job"
    DATABASE_TRIGGER = "database_trigger"
    CRON_SCHEDULER = "cron_scheduler"


class EventStatus(StrEnum):
    """How far an event's fan-out is (F4); a later one supersedes an earlier one."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


_NOTHING: Final = (None,) * 5


class Recipient(BaseModel):
    """One person an event is for; contact details given inline count for this event only."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    id: str
    email: str | None = None
    phone: str | None = None
    name: str | None = None
    locale: str | None = None
    timezone: str | None = None

    @property
    def inline(self) -> bool:
        """Whether the caller gave contact details, so that no stored user is needed."""
        return (self.email, self.phone, self.name, self.locale, self.timezone) != _NOTHING


_GIVEN_INLINE: Final = tuple(name for name in Recipient.model_fields if name != "id")


class Event(BaseModel):
    """An accepted event with everything resolved: its strategy is the one followed, its steps those of the policy
    version it began with, limited to its channels."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    id: UUID
    generation: int = 0
    """How often it was entered again (a replay of a dead letter). Scripts read it in the JSON, so it stands here."""
    type: str
    source: Source
    title: str | None
    message: str
    metadata: dict[str, Any]
    channels: tuple[Channel, ...]
    asked_strategy: Strategy | None
    strategy: Strategy
    priority: Priority
    policy: str
    steps: tuple[Step, ...]
    mandatory: bool
    sender: str
    """The name of the API key that posted it."""
    cid: str
    """The correlation id of the request."""
    accepted_ms: int
    recipient_count: int | None
    """None for an audience: who is in it is found by the fan-out."""
    unknown_ids: tuple[str, ...] = ()
    """The user ids asked for that are not known; counted and listed, never sent to."""
    audience: Audience | None = None
    """Whom it is for beside the recipients that were named."""
    event_key: str | None = None
    """The caller's own name for what it is about (E3)."""
    signature: str | None = None
    """What tells it from another one with its key; never None where it has one."""


def devices_as_address(devices: int) -> str | None:
    """The address that push shows of so many devices."""
    return f"{devices} device{'s' if devices > 1 else ''}" if devices else None


def addresses_of(user: str, devices: int, phone: str | None, email: str | None) -> dict[Channel, str]:
    """The address that each channel would use, of those that reach a person."""
    found: dict[Channel, str] = {Channel.IN_APP: user}
    if reached := devices_as_address(devices):
        found[Channel.PUSH] = reached
    if phone:
        found[Channel.SMS] = phone
    if email:
        found[Channel.EMAIL] = email
    return found


class Contact(BaseModel):
    """Where a person can be reached, and what they allow. `version` grows with every change of the stored user."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    id: str
    email: str | None = None
    phone: str | None = None
    name: str | None = None
    locale: str | None = None
    timezone: str | None = None
    tokens: tuple[str, ...] = ()
    active: bool = True
    opt_outs: tuple[str, ...] = ()
    """What the person switched off (P1): "SMS" for a channel, "SMS@event.approval" for a channel and an event type."""
    version: int = 0

    def addresses(self) -> dict[Channel, str]:
        """The address a channel would use; push shows the number of devices, never a token."""
        return addresses_of(self.id, len(self.tokens), self.phone, self.email)

    def overlaid(self, given: Recipient) -> "Contact":
        """This contact with what a caller gave inline for one event in its place."""
        details = {name: detail for name in _GIVEN_INLINE if (detail := getattr(given, name)) is not None}
        return self.model_copy(update=details) if details else self
