"""The scenes of `tocsin demo`: who takes part, and what is posted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tocsin.domain.delivery import Channel
from tocsin.domain.plan import Priority, Strategy


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody of the demo. Numbers and addresses are of those kept for fiction: they reach nobody."""

    id: str
    name: str
    email: str
    phone: str

    @property
    def device(self) -> str:
        """The token of their phone."""
        return f"{self.id}-device-0000000000"


ASHA: Final = Person("demo-asha", "Asha", "asha@example.org", "+14155550101")
BINA: Final = Person("demo-bina", "Bina", "bina@example.org", "+14155550102")
CHITRA: Final = Person("demo-chitra", "Chitra", "chitra@example.org", "+14155550103")
PEOPLE: Final = (ASHA, BINA, CHITRA)


@dataclass(frozen=True, slots=True)
class Scene:
    """An event for one person, and what the story says of it. `is_read`: the person reads it before the SMS step;
    `is_planned_only`: its plan is looked at and the rest withdrawn."""

    letter: str
    heading: str
    person: Person
    event: Mapping[str, Any]
    is_read: bool = False
    is_planned_only: bool = False

    def posting(self) -> dict[str, Any]:
        """The body of the request."""
        return {**self.event, "recipientIds": [self.person.id]}


APPROVAL: Final = Scene(
    "A",
    "An approval, told on every channel at once",
    ASHA,
    {
        "type": "event.approval",
        "title": "Approved",
        "message": "Your event on Saturday has been approved.",
        "notificationPriority": Priority.HIGH,
        "metadata": {"actionUrl": "/events/9"},
    },
)
NEWS: Final = Scene(
    "B",
    "News that nobody reads: it goes on from channel to channel",
    BINA,
    {
        "type": "community.update",
        "title": "Community hall",
        "message": "The community hall is closed on Friday.",
        "deliveryStrategy": Strategy.ESCALATION,
        "policy": "demo",
    },
)
NEWS_READ: Final = Scene(
    "C",
    "The same news, read before the SMS",
    CHITRA,
    {**NEWS.event},
    is_read=True,
)
ALERT: Final = Scene(
    "D",
    "A security alert: CRITICAL does not wait, though ESCALATION was asked",
    ASHA,
    {
        "type": "security.alert",
        "title": "New sign-in",
        "message": "Somebody signed in to your account from a new device.",
        "notificationPriority": Priority.CRITICAL,
        "deliveryStrategy": Strategy.ESCALATION,
    },
)
PLANNED: Final = Scene(
    "E",
    "The default policy: its plan is looked at, the rest withdrawn",
    BINA,
    {
        "type": "community.update",
        "title": "Annual meeting",
        "message": "The annual meeting is in May.",
        "deliveryStrategy": Strategy.ESCALATION,
        "policy": "default",
    },
    is_planned_only=True,
)
SCENES: Final = (APPROVAL, NEWS, NEWS_READ, ALERT, PLANNED)

COSTLY: Final = frozenset({Channel.SMS, Channel.EMAIL})
"""The channels that a read must stop."""
