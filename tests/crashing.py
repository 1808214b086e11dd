"""How a process of the program is made to die by kill -9 at a named point (Program's `dies`).

Each point is a method of storage, just before or just after which the process ends, the `nth` time it is reached.
"""

import functools
import os
import signal
from typing import Any

from tocsin.actors import send
from tocsin.storage.attempts import Attempts
from tocsin.storage.entrance import Entrance
from tocsin.storage.facts import Journal
from tocsin.storage.first_chunks import FirstChunks
from tocsin.storage.flights import Flights
from tocsin.storage.inbox import InboxLists
from tocsin.storage.stops import Stops
from tocsin.storage.store import Store

POINTS: dict[str, tuple[type, str, str]] = {
    "between accept and fan_out": (Entrance, "enter", "before"),
    "after an event was entered": (Entrance, "enter", "after"),
    "before first chunks are made": (FirstChunks, "make", "before"),
    "after first chunks are made": (FirstChunks, "make", "after"),
    "before first chunks are routed": (FirstChunks, "route", "before"),
    "after first chunks are routed": (FirstChunks, "route", "after"),
    "before a page is taken": (Flights, "take_page", "before"),
    "after a page is taken": (Flights, "take_page", "after"),
    "before a chunk is routed": (Flights, "route", "before"),
    "after a chunk is routed": (Flights, "route", "after"),
    "before work backs off": (Flights, "back_off", "before"),
    "after work backs off": (Flights, "back_off", "after"),
    "before what is due starts": (Flights, "escalate", "before"),
    "after what is due starts": (Flights, "escalate", "after"),
    "before a claim": (Attempts, "claim", "before"),
    "after a claim": (Attempts, "claim", "after"),
    "before claims are handed back": (Attempts, "release", "before"),
    "after claims are handed back": (Attempts, "release", "after"),
    "between claim and begin": (Attempts, "begin", "before"),
    "between begin and send": (Attempts, "begin", "after"),
    "between send and record": (Attempts, "record", "before"),
    "between record and reply": (Attempts, "record", "after"),
    "between commit and trim": (Store, "stored", "before"),
    "before lists are trimmed": (InboxLists, "trim", "before"),
    "after lists are trimmed": (InboxLists, "trim", "after"),
    "before the journal forgets": (Journal, "done", "before"),
    "after the journal forgot": (Journal, "done", "after"),
    "before a read": (Flights, "read", "before"),
    "after a read": (Flights, "read", "after"),
    "before an event is withdrawn": (Stops, "begin", "before"),
    "after an event is withdrawn": (Stops, "begin", "after"),
}


async def _fails(*_: Any) -> Any:
    raise RuntimeError("made to fail")


async def _lacks_everything(*_: Any) -> dict[Any, Any]:
    return {}


def provoke(name: str) -> None:
    """Makes go wrong what some points are reached by alone: events that cannot be begun or routed together."""
    if name == "take_page":
        FirstChunks.make = _lacks_everything  # type: ignore[assignment,method-assign]
    elif name in {"route", "back_off"}:
        FirstChunks.route = _lacks_everything  # type: ignore[assignment,method-assign]
    if name == "back_off":
        Flights.to_route = _fails  # type: ignore[assignment,method-assign]
    elif name == "release":
        send.messages_for = _lacks_everything  # type: ignore[assignment]


def arm(point: str, nth: int) -> None:
    """From now on this process dies at `point`."""
    owner, name, when = POINTS[point]
    if owner is not FirstChunks:
        provoke(name)
    method = getattr(owner, name)
    reached = 0

    @functools.wraps(method)
    async def dying(*arguments: Any, **named: Any) -> Any:
        nonlocal reached
        reached += 1
        if reached >= nth and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = await method(*arguments, **named)
        if reached >= nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(owner, name, dying)
