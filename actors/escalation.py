"""What is due starts: looked for ten times a second by every process that runs actors, safe many at a time."""

import asyncio
from collections.abc import Mapping

from loguru import logger

from tocsin.actors import queues
from tocsin.actors.outages import say_failed
from tocsin.domain.delivery import Channel
from tocsin.domain.errors import Unavailable
from tocsin.domain.rate import Rate
from tocsin.storage.memory import Work
from tocsin.storage.store import Store

EVERY_S = 0.1
_AWAY_S = 1.0
_MOST_WAITING = 2
"""Calls for one channel: each claims as much as its process has room for."""
_MOST_REPEATED = 200
"""Calls for events and chunks: where so many wait, who is called again will hardly have been forgotten. Without this a
queue that takes longer than the guard time would be given each of them over and over, and never get through."""


async def watch(store: Store, providers: Mapping[Channel, str], rates: Mapping[Channel, Rate]) -> None:
    """Runs until it is cancelled. `providers` say who carries each channel: nobody is called for it while that one
    rests, or has been given what its one of `rates` allows."""
    away = False
    while True:
        try:
            busy = await escalate(store, providers, rates)
            if away:
                logger.info("what is due starts again")
            away = False
            await asyncio.sleep(0 if busy else EVERY_S)
        except Unavailable as error:
            if not away:
                logger.warning("what is due waits: {}", error)
            away = True
            await asyncio.sleep(_AWAY_S)
        except Exception:
            say_failed("looking for what is due")
            await asyncio.sleep(_AWAY_S)


async def escalate(store: Store, providers: Mapping[Channel, str], rates: Mapping[Channel, Rate] | None = None) -> bool:
    """One look, unless Redis is nearly full. True when there may be more that is due already."""
    await store.memory.check(Work.SEND)
    calls, more = await store.flights.escalate(queues.SENDING_CHANNELS, providers, rates)
    for call in calls:
        kind, _, name = call.partition(":")
        if kind == "e":
            await store.calls.put(queues.FAN_OUT, "fan_out", name, most_waiting=_MOST_REPEATED)
        elif kind == "c":
            event, chunk = name.split(":")
            await store.calls.put(queues.ROUTE, "route", event, int(chunk), most_waiting=_MOST_REPEATED)
        else:
            queue = queues.of_channel(Channel(name))
            await store.calls.put(queue, queue, most_waiting=_MOST_WAITING)
    return more
