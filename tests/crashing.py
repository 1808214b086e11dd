"""The program, made to die by kill -9 at a named point: `python tests/crashing.py <point> <nth> <arguments…>`.

Each point is a method of storage, just before or just after which the process ends, the `nth` time it is reached.

`python tests/crashing.py many` reads the program once, and then for each line of its input, a JSON object with point,
nth, arguments, environ and log, lets a fork of it live until it dies there; answers each with its exit status.
"""

import functools
import json
import os
import signal
import sys
from typing import Any

from tocsin.actors import send
from tocsin.app import main
from tocsin.storage.attempts import Attempts
from tocsin.storage.entrance import Entrance
from tocsin.storage.facts import Journal
from tocsin.storage.flights import Flights
from tocsin.storage.inbox import InboxLists
from tocsin.storage.store import Store

POINTS: dict[str, tuple[type, str, str]] = {
    "between accept and fan_out": (Entrance, "enter", "before"),
    "after an event was entered": (Entrance, "enter", "after"),
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
    "before an event is withdrawn": (Flights, "withdraw", "before"),
    "after an event is withdrawn": (Flights, "withdraw", "after"),
}


async def _fails(*_: Any) -> Any:
    raise RuntimeError("made to fail")


async def _lacks_everything(*_: Any) -> dict[Any, Any]:
    return {}


def provoke(name: str) -> None:
    """Makes go wrong what some points are reached by alone."""
    if name == "back_off":
        Flights.chunk = _fails  # type: ignore[assignment,method-assign]
    elif name == "release":
        send.messages_for = _lacks_everything  # type: ignore[assignment]


def arm(point: str, nth: int) -> None:
    owner, name, when = POINTS[point]
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


def live_and_die(point: str, nth: int, arguments: list[str], environ: dict[str, str], log: str) -> None:
    """What a fork does. Does not return."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ |= environ
    arm(point, nth)
    sys.argv = ["tocsin", *arguments]
    main()


def many() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            live_and_die(**order)
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1] == "many":
        many()
    else:
        arm(sys.argv[1], int(sys.argv[2]))
        sys.argv = ["tocsin", *sys.argv[3:]]
        main()
