"""Events as the stages make them that work inside this process."""

import os
import time
from collections.abc import Sequence

from tocsin.domain import ids
from tocsin.domain.delivery import Channel
from tocsin.domain.event import Event, Source
from tocsin.domain.plan import Priority, Step, Strategy


def event_of(number: int, people: int, steps: Sequence[Step]) -> Event:
    """The `number`-th event of a stage, for so many people, with these steps for each."""
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
    )
