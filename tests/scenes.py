"""What many tests begin with: an event, people, a routed notification."""

import os
from collections.abc import Sequence
from typing import Any

from tocsin.domain import ids
from tocsin.domain.delivery import Channel
from tocsin.domain.event import Event, Recipient, Source
from tocsin.domain.plan import PlannedStep, Priority, Step, Strategy
from tocsin.storage.flight_parts import Page, Progress, Routed, Routing
from tocsin.storage.flights import Flights

EVERYTHING_NOW = tuple(Step(channel, 0) for channel in Channel)


def an_event(*steps: Step, **given: Any) -> Event:
    """An event of one recipient unless told otherwise, on every channel at once."""
    details: dict[str, Any] = {
        "id": ids.event_id(1_795_000_000_000, os.urandom(10)),
        "type": "event.approval",
        "source": Source.API_ACTION,
        "title": "Approved",
        "message": "Your event has been approved",
        "metadata": {},
        "channels": tuple(Channel),
        "asked_strategy": None,
        "strategy": Strategy.BROADCAST,
        "priority": Priority.HIGH,
        "policy": "default",
        "steps": steps or EVERYTHING_NOW,
        "mandatory": False,
        "sender": "tests",
        "cid": "cid-1",
        "accepted_ms": 1_795_000_000_000,
        "recipient_count": 1,
    }
    return Event(**(details | given))


def people(*names: str) -> list[Recipient]:
    """People who are reached on every channel."""
    return [Recipient(id=name, email=f"{name}@example.org", phone="+14155550123") for name in names]


def routing(event: Event, user: str) -> Routing:
    """A plan in which every step can be taken."""
    plan = tuple(
        PlannedStep(number, step.channel, step.after_ms, None) for number, step in enumerate(event.steps, start=1)
    )
    addresses = [f"{step.channel}-of-{user}" for step in event.steps if step.channel is not Channel.IN_APP]
    return Routing(str(ids.notification_id(event.id, user)), user, plan, addresses)


async def progress_of(flights: Flights, event: Event) -> Progress:
    """How far an event's fan-out is."""
    found = await flights.to_fan_out(event.id)
    assert found is not None
    return found[1]


async def route_chunk(flights: Flights, event: Event, number: int, routings: Sequence[Routing]) -> Routed | None:
    """Routes a chunk of an event as it is entered now."""
    return await flights.route(event, number, routings, (await progress_of(flights, event)).entry)


async def chunk_of(flights: Flights, event: Event, number: int) -> list[str]:
    """The users of a chunk; none when it was routed."""
    found = await flights.to_route(event.id, number)
    return [person.id for person in found.people] if found else []


async def routed(flights: Flights, event: Event, *users: str) -> list[Routing]:
    """Accepts, fans out and routes an event of at most 100 users."""
    await flights.accept(event, people(*users), None)
    page: Page = await flights.take_page(event, 0)
    assert page.chunk is not None
    routings = [routing(event, user) for user in users]
    await route_chunk(flights, event, page.chunk, routings)
    return routings
