"""The program, made to die by kill -9 at a named point: `python tests/crashing.py <point> <nth> <arguments…>`.

Each point is a method of storage, just before or just after which the process ends, the `nth` time it is reached.
"""

import functools
import os
import signal
import sys
from typing import Any

from tocsin.app import main
from tocsin.storage.entrance import Entrance
from tocsin.storage.flights import Flights
from tocsin.storage.store import Store

POINTS: dict[str, tuple[type, str, str]] = {
    "between accept and fan_out": (Entrance, "enter", "before"),
    "before a chunk is routed": (Flights, "route", "before"),
    "after a chunk is routed": (Flights, "route", "after"),
    "between claim and begin": (Flights, "begin", "before"),
    "between send and record": (Flights, "record", "before"),
    "between record and reply": (Flights, "record", "after"),
    "between commit and trim": (Store, "stored", "before"),
}


def arm(point: str, nth: int) -> None:
    owner, name, when = POINTS[point]
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


if __name__ == "__main__":
    arm(sys.argv[1], int(sys.argv[2]))
    sys.argv = ["tocsin", *sys.argv[3:]]
    main()
