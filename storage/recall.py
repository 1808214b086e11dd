"""What Redis is given back after it was lost, before its next life begins (docs/adr/0005).

Every step that could harm a life that has begun asks first whether this one is still to come: Redis may be lost again
meanwhile, or somebody else may have been quicker.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from tocsin.domain.event import Event, Recipient
from tocsin.storage.flight_parts import Again, OpenFlight
from tocsin.storage.flights import READ_MARKER_MS, Flights
from tocsin.storage.keys import Keys
from tocsin.storage.profiles import Profiles
from tocsin.storage.redis import told
from tocsin.storage.scripts import MOST_ITEMS, Scripts

_IN_MOTION: Final = frozenset({"flight", "chunk", "known"})
"""What is in a Redis that is older than it should be, and never in an empty one."""
_CLEARED: Final = _IN_MOTION | {
    *("due", "event", "recipients", "claim", "restored", "contacts", "profile", "optouts", "people_mirrored"),
    "api_keys",
}
"""What is made anew, by the name after the namespace. The journal stays, and what was read or withdrawn stays so."""
_SCANNED: Final = 1_000
_ANSWERS_KEPT_MS: Final = 10_000
_TOGETHER: Final = 10


@dataclass(frozen=True, slots=True)
class Entering:
    """An event that goes on with `people`."""

    event: Event
    people: Sequence[Recipient]
    again: Again


class Recall:
    """Fills Redis for the life `coming`. `scripts` work in that life, and so do `flights`."""

    def __init__(
        self, client: Any, keys: Keys, coming: str, scripts: Scripts, flights: Flights, profiles: Profiles
    ) -> None:
        self._client = client
        self._keys = keys
        self._coming = coming
        self._scripts = scripts
        self._flights = flights
        self._profiles = profiles

    async def is_wanted(self) -> bool:
        """Whether this life is still to come."""
        with told():
            return bool(await self._client.get(self._keys.coming_life) == self._coming)

    async def clear(self) -> bool:
        """Removes what an older Redis has in motion; True when there was any. Raises RedisLost, as all of these do,
        when this life is not to come any more."""
        older, names = False, list[str]()
        with told():
            async for name in self._client.scan_iter(match=f"{self._keys.namespace}:*", count=_SCANNED):
                kind = name[len(self._keys.namespace) + 1 :].split(":", 1)[0]
                if kind in _CLEARED:
                    older = older or kind in _IN_MOTION
                    names.append(name)
        for first in range(0, len(names), MOST_ITEMS):
            await self._scripts.run("clear", *names[first : first + MOST_ITEMS])
        return older

    async def give_up(self) -> None:
        """Lets another life come in place of this one."""
        await self._scripts.run("clear", self._keys.coming_life)

    async def keep_events(self, events: Iterable[tuple[Event, Sequence[Recipient]]]) -> None:
        """Keeps the content of events whose fan-out is done, for what of them is in motion, and what callers gave
        inline."""
        for event, people in events:
            await self._flights.keep_content([event])
            await self.keep_inline(event, people)

    async def keep_inline(self, event: Event, people: Sequence[Recipient]) -> None:
        """Keeps what callers gave inline."""
        await self._profiles.keep_inline(event.id, people, self._flights.keep_ms(event))

    async def mark_cancelled(self, events: Iterable[UUID]) -> None:
        """Keeps that events were withdrawn."""
        with told():
            async with self._client.pipeline(transaction=False) as pipeline:
                for event in events:
                    pipeline.set(self._keys.cancelled(event), "1", px=self._flights.longest_ms)
                await pipeline.execute()

    async def mark_read(self, read_ms: Mapping[UUID, tuple[str, int]]) -> None:
        """Keeps who read notifications that are not made yet, and when."""
        with told():
            async with self._client.pipeline(transaction=False) as pipeline:
                for note, (user, at_ms) in read_ms.items():
                    pipeline.set(self._keys.read(note), f"{at_ms}:{user}|", px=READ_MARKER_MS, nx=True)
                await pipeline.execute()

    async def mark_known(self, event: Event, deliveries: Sequence[tuple[UUID, int]]) -> None:
        """Keeps which deliveries of an event are in motion or done though their notifications are still to be made."""
        if deliveries:
            key = self._keys.known(event.id)
            with told():
                async with self._client.pipeline(transaction=True) as pipeline:
                    pipeline.hset(key, mapping={f"{note}:{step}": "1" for note, step in deliveries})
                    pipeline.pexpire(key, self._flights.longest_ms)
                    await pipeline.execute()

    async def enter(self, entering: Sequence[Entering]) -> None:
        """Enters events that were on their way."""
        steps = [self._flights.accepting(each.event, each.people, None, each.again) for each in entering]
        await self._scripts.run_in_turn(steps)

    async def restore(self, flights: Sequence[OpenFlight]) -> list[str]:
        """Puts notifications back into motion; answers for each step as Flights.restore does."""
        answers: list[str] = []
        for first in range(0, len(flights), MOST_ITEMS * _TOGETHER):
            some = flights[first : first + MOST_ITEMS * _TOGETHER]
            steps = [
                self._flights.restoring(some[at : at + MOST_ITEMS], _ANSWERS_KEPT_MS)
                for at in range(0, len(some), MOST_ITEMS)
            ]
            for answer in await self._scripts.run_in_turn(steps):
                answers += answer
        return answers

    async def begin(self) -> bool:
        """Begins the life; False when it is not to come any more."""
        return bool(await self._scripts.run("live", self._coming) == "1")
