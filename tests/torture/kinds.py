"""The kinds of events that are posted: each with the share of posts it makes, and how it is made."""

import random
from collections.abc import Callable
from typing import Any

USERS = 200
"""Stored people: torture-0 …; the first few have a device that is dead."""
CROWD = 1_500
"""More people are stored, who are found by a filter: so many that their event is gone on with in turns (ADR 16)."""

Body = dict[str, Any]


def user_of(number: int) -> str:
    return f"torture-{number}"


def crowd() -> list[Body]:
    """Who they are."""
    return [{"id": f"crowd-{number:04}", "attributes": {"crowd": True}} for number in range(CROWD)]


def to_crowd() -> Body:
    """An event to all of them, with a delivery for each."""
    told = {"message": "Torture by crowd", "type": "community.update", "channels": ["IN_APP"]}
    return {**told, "segment": {"crowd": True}}


class Making:
    """Makes events; `made` numbers the people who are given inline, each with an address of their own."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.made = 0

    def one(self) -> tuple[Body, int]:
        """An event of some kind: what is posted, and how many deliveries it asks for."""
        kinds = list(SHARES)
        kind = self._chance.choices(kinds, [SHARES[each][0] for each in kinds])[0]
        body, people = SHARES[kind][1](self)
        return {"message": f"Torture by {kind}", **body}, people * _steps(body)

    def inline(self, most: int) -> tuple[Body, int]:
        people = []
        for _ in range(self._chance.randint(1, most)):
            self.made += 1
            phone = f"+1415{2_000_000 + self.made % 7_999_999}"
            people.append({"id": f"inline-{self.made}", "email": f"inline-{self.made}@torture.test", "phone": phone})
        return {"recipients": people}, len(people)

    def stored(self, least: int, most: int) -> tuple[Body, int]:
        people = self._chance.sample(range(USERS), self._chance.randint(least, most))
        return {"recipientIds": [user_of(number) for number in people]}, len(people)


def _with(people: tuple[Body, int], **more: Any) -> tuple[Body, int]:
    return people[0] | more, people[1]


def _announce(making: Making) -> tuple[Body, int]:
    return _with(making.inline(5), type="event.approval", channels=["IN_APP", "SMS", "EMAIL"])


def _broadcast(making: Making) -> tuple[Body, int]:
    return _with(making.stored(1, 6), type="event.approval")


def _escalate(making: Making) -> tuple[Body, int]:
    return _with(making.stored(1, 8), type="community.update")


def _critical(making: Making) -> tuple[Body, int]:
    return _with(making.stored(1, 3), type="security.alert", deliveryStrategy="ESCALATION")


def _inbox(making: Making) -> tuple[Body, int]:
    return _with(making.stored(20, 120), type="community.update", channels=["IN_APP"])


def _far(making: Making) -> tuple[Body, int]:
    return _with(making.inline(2), type="community.update", policy="far")


def _twice(making: Making) -> tuple[Body, int]:
    return _with(making.inline(3), type="community.update", policy="twice")


def _mandatory(making: Making) -> tuple[Body, int]:
    return _with(making.stored(1, 3), type="torture.mandatory", notificationPriority="HIGH")


SHARES: dict[str, tuple[float, Callable[[Making], tuple[Body, int]]]] = {
    "announce": (5, _announce),
    "broadcast": (4, _broadcast),
    "escalate": (5, _escalate),
    "critical": (2, _critical),
    "inbox": (2, _inbox),
    "far": (0.5, _far),
    "twice": (2, _twice),
    "mandatory": (1, _mandatory),
}


def _steps(body: Body) -> int:
    if "policy" in body:
        return 2
    return len(body.get("channels", "four"))
