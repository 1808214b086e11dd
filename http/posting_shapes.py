"""What posting takes and answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self
from uuid import UUID

from pydantic import Field, JsonValue, PrivateAttr, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from tocsin.domain.audience import MOST_TOPICS
from tocsin.domain.delivery import Channel
from tocsin.domain.plan import Priority, Strategy
from tocsin.http.refusals import findings_of
from tocsin.http.shapes import Answer, Asked, EventType, Line, Text, limited
from tocsin.storage.event_keys import REPLACED, UNCHANGED


class InlineRecipient(Asked):
    """A person with contact details that count for this event only. One whose id or details are wrong is left out and
    listed, so no form is asked of a text here: it would refuse the others too."""

    id: str
    email: str | None = None
    phone: str | None = None
    name: str | None = None
    locale: str | None = None
    timezone: str | None = None


class TopicRecipients(Asked):
    """The members of a topic; with `roles` those who have one of them."""

    key: str
    roles: Annotated[tuple[str, ...], Field(max_length=100)] = ()


class PostNotification(Asked):
    """An event to be told to people."""

    later: ClassVar[frozenset[str]] = frozenset(
        {
            "filters",
            "template",
            "data",
            "sendAt",
            "schedule",
            "cron",
            "tracking",
            "offPeak",
        }
    )

    type: EventType
    message: Text = Field(json_schema_extra=limited("message"))
    title: Line | None = Field(None, json_schema_extra=limited("title"))
    recipient_ids: tuple[str, ...] = Field((), json_schema_extra=limited("recipients"))
    recipients: tuple[InlineRecipient, ...] = Field((), json_schema_extra=limited("recipients"))
    topics: Annotated[tuple[TopicRecipients, ...], Field(max_length=MOST_TOPICS)] = ()
    segment: dict[str, JsonValue] | None = None
    subscribers: bool = False
    everyone: bool = False
    channels: Annotated[tuple[Channel, ...], Field(min_length=1, max_length=20)] | None = None
    delivery_strategy: Strategy | None = None
    notification_priority: Priority | None = None
    policy: Annotated[Line, StringConstraints(max_length=100)] | None = None
    metadata: dict[str, JsonValue] | None = None
    key: Annotated[Line, StringConstraints(max_length=200)] | None = None
    signature: Annotated[Line, StringConstraints(max_length=200)] | None = None


class BulkNotifications(Asked):
    """Events that are posted together; each is accepted or refused on its own."""

    later: ClassVar[frozenset[str]] = PostNotification.later

    notifications: Annotated[tuple[PostNotification, ...], Field(min_length=1, json_schema_extra=limited("bulk"))]

    _refused: dict[int, list[ErrorDetails]] = PrivateAttr(default_factory=dict)

    @property
    def refused(self) -> Mapping[int, list[ErrorDetails]]:
        """What is wrong with events that cannot be read, by their places in the request."""
        return self._refused

    @property
    def placed(self) -> list[tuple[int, PostNotification]]:
        """The events that can be read, with their places in the request."""
        total = len(self.notifications) + len(self._refused)
        places = [place for place in range(total) if place not in self._refused]
        return list(zip(places, self.notifications, strict=True))

    @classmethod
    def read(cls, raw: bytes) -> Self:
        """An event that is wrong in itself does not stop the others, unless all are. Raises ValidationError."""
        try:
            return cls.model_validate_json(raw)
        except ValidationError as error:
            refused: dict[int, list[ErrorDetails]] = {}
            for found in findings_of(error):
                match found["loc"]:
                    case ("notifications", int(place), *_):
                        refused.setdefault(place, []).append(found)
                    case _:
                        raise
            events = json.loads(raw)["notifications"]
            if len(refused) == len(events):
                raise
        made = cls(
            notifications=tuple(
                PostNotification.model_validate_json(json.dumps(event))
                for place, event in enumerate(events)
                if place not in refused
            )
        )
        made._refused = refused
        return made


class Addressed(Answer):
    """One person's notification."""

    recipient_id: str
    id: UUID


class RejectedRecipient(Answer):
    """A recipient that was left out, and why."""

    id: str
    code: str
    field: str


class Durability(StrEnum):
    """Where the event lies now; what is in Redis alone goes to Postgres when it is back."""

    POSTGRES = "postgres"
    REDIS = "redis"


class PostResult(StrEnum):
    """What became of an event with a key: UNCHANGED where a live one says the same, REPLACED where it stopped one."""

    ACCEPTED = "ACCEPTED"
    UNCHANGED = UNCHANGED
    REPLACED = REPLACED


class Posted(Answer):
    """The event was accepted; where it is UNCHANGED, this is the one that was there."""

    success: Literal[True] = True
    message: str = "Notification queued for delivery"
    id: UUID
    recipient_count: int | None
    """Null for an audience: it is found by the fan-out, and counted on the event."""
    durability: Durability
    notifications: tuple[Addressed, ...]
    unknown_ids: tuple[str, ...]
    rejected_recipients: tuple[RejectedRecipient, ...]
    result: PostResult
    replaced_id: UUID | None
    """The event that it stopped."""


class BulkItem(Answer):
    """What became of one event of a bulk request, by its place in it."""

    index: int
    success: bool
    status: int
    result: Posted | None = None
    problem: dict[str, Any] | None = None


class BulkPosted(Answer):
    """What became of each event."""

    success: bool
    accepted: int
    refused: int
    results: tuple[BulkItem, ...]
