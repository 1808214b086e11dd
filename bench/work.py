"""Events as the stages make them that work inside this process."""

import os
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from tocsin.actors.fan_out import fan_out
from tocsin.actors.route import route
from tocsin.domain import ids
from tocsin.domain.audience import Audience
from tocsin.domain.delivery import Channel
from tocsin.domain.event import Event, Source
from tocsin.domain.plan import Priority, Step, Strategy
from tocsin.storage.store import Store


def event_of(number: int, people: int | None, steps: Sequence[Step]) -> Event:
    """The `number`-th event of a stage, for so many people who are named (None: for everyone who is known), with these
    steps for each."""
    now_ms = time.time_ns() // 1_000_000
    return Event(
        id=ids.event_id(now_ms, os.urandom(10)),
        type="event.approval",
        source=Source.API_ACTION,
        title="Approved",
        message="Your event has been approved",
        metadata={},
        channels=tuple(Channel),
        asked_strategy=None,
        strategy=Strategy.ESCALATION,
        priority=Priority.MEDIUM,
        policy="default",
        steps=tuple(steps),
        mandatory=False,
        sender="bench",
        cid=f"bench-{number}",
        accepted_ms=now_ms,
        recipient_count=people,
        audience=Audience(everyone=True) if people is None else None,
    )


async def routed(store: Store, event: UUID) -> None:
    """Does the work of fan_out and route on one event, one call after the other."""
    client: Any = store._client
    done = 0
    fanned = "0"
    while fanned != "1":
        await fan_out(store, str(event))
        made, fanned = await client.hmget(f"tocsin:event:{event}", "chunks", "fanned")
        for chunk in range(done, int(made)):
            await route(store, str(event), chunk)
        done = int(made)
