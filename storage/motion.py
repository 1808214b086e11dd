"""What Redis has in motion, for those who compare it with Postgres: flights, and the entries of the time index."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tocsin.domain.delivery import Channel
from tocsin.storage.flight_parts import SeenFlight, seen_flight
from tocsin.storage.keys import Keys
from tocsin.storage.redis import told
from tocsin.storage.scripts import MOST_ITEMS, Scripts

_is_step: Final = re.compile(r"([0-9a-f-]{36}):(\d+)").fullmatch
_SCANNED: Final = 500
_KEPT_MS: Final = 86_400_000
"""How long the content of an event is kept of which nobody said how long."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """What a look found: `what` is "missing" (no flight has that step), "unindexed" (the index does not know it) or
    "ended" (its lease ran out while the provider was called); `channel` is not known of a missing one."""

    what: str
    notification: str
    step: int
    channel: str


@dataclass(frozen=True, slots=True)
class Dropping:
    """Something to be taken out, as drop.lua has it: its kind, its name, and what was seen of it."""

    kind: str
    name: str
    seen: str
    more: str = ""


class Motion:
    """Looks, a page at a time. All raise RedisAway."""

    def __init__(self, client: Any, scripts: Scripts, keys: Keys) -> None:
        self._client = client
        self._scripts = scripts
        self._keys = keys

    @property
    def indexes(self) -> tuple[str, ...]:
        """The keys of the time index."""
        sending = [channel for channel in Channel if channel is not Channel.IN_APP]
        return (
            self._keys.due,
            *(self._keys.due_in(channel, critical=critical) for channel in sending for critical in (True, False)),
        )

    async def look(self, wanted: Mapping[str, Iterable[int]], *, mend: bool) -> list[Wrong]:
        """What is wrong with the steps of notifications (at most 100) that are open."""
        arguments = [part for note, steps in wanted.items() for part in (note, ",".join(map(str, steps)))]
        answer = await self._scripts.run("look", "1" if mend else "0", *arguments)
        return [
            Wrong(what, note, int(step), channel) for what, note, step, channel in (text.split("|") for text in answer)
        ]

    async def entries(self, index: str, cursor: int) -> tuple[int, list[str]]:
        """Some entries of an index, and where to go on; 0 begins and ends. One that stays is met at least once."""
        with told():
            cursor, found = await self._client.zscan(index, cursor, count=MOST_ITEMS)
        return int(cursor), [member for member, _ in found]

    async def flights(self, notifications: Sequence[str]) -> dict[str, SeenFlight]:
        """The flights of notifications; those that have none are left out."""
        texts: list[str] = []
        for first in range(0, len(notifications), MOST_ITEMS):
            # One call: a command each would cost several times as much on this side.
            texts += await self._scripts.run("peek", *notifications[first : first + MOST_ITEMS])
        found = zip(notifications, texts, strict=True)
        return {note: seen_flight(note, text) for note, text in found if text}

    async def due_between(self, from_ms: int, to_ms: int, most: int) -> list[str]:
        """The notifications of which something is to start in a span of time; up to `most`."""
        notes: dict[str, None] = {}
        for index in self.indexes:
            with told():
                entries = await self._client.zrangebyscore(index, from_ms, to_ms, start=0, num=most)
            if index == self._keys.due:
                notes |= dict.fromkeys(entry[2:] for entry in entries if entry.startswith("n:"))
            else:
                notes |= dict.fromkeys(named[0] for named in map(step_of, entries) if named)
        return list(notes)[:most]

    async def exist(self, entries: Sequence[str]) -> list[bool]:
        """Whether what entries of `due` stand for is there: "e:<event>" or "c:<event>:<chunk>"."""
        with told():
            async with self._client.pipeline(transaction=False) as pipeline:
                for entry in entries:
                    kind, _, name = entry.partition(":")
                    pipeline.exists(self._keys.event(name) if kind == "e" else self._keys.chunk(*name.split(":")[:2]))
                return [bool(answer) for answer in await pipeline.execute()]

    async def scan(self, cursor: int) -> tuple[int, list[tuple[str, str]]]:
        """Some keys, each as its kind and the rest of its name, and where to go on; 0 begins and ends."""
        with told():
            cursor, names = await self._client.scan(cursor, match=f"{self._keys.namespace}:[cefr]*", count=_SCANNED)
        found = (name[len(self._keys.namespace) + 1 :].partition(":") for name in names)
        return int(cursor), [(kind, rest) for kind, _, rest in found]

    async def in_bucket(self, bucket: str) -> list[str]:
        """The notifications whose flights lie in a bucket."""
        with told():
            fields = await self._client.hkeys(self._keys.bucket(bucket))
        return [f"{bucket}-{field}" for field in fields]

    async def tidy(self, names: Sequence[tuple[str, str, bool]], *, mend: bool) -> list[str]:
        """What is to be said of keys of events (at most 100), each given as its kind, the rest of its name, and whether
        it may go: see tidy.lua."""
        arguments = [part for kind, name, may_go in names for part in (kind, name, "1" if may_go else "0")]
        return [str(text) for text in await self._scripts.run("tidy", "1" if mend else "0", _KEPT_MS, *arguments)]

    async def make_room(self, event: str, *, ended: bool) -> bool:
        """Makes room for an event to be entered anew; False while it is on its way, and, unless `ended`, when it has
        come to its end."""
        return bool(await self._scripts.run("room", event, "1" if ended else "0"))

    async def drop(self, droppings: Sequence[Dropping]) -> list[bool]:
        """Takes out what is still as it was seen; answers for each whether it was."""
        done: list[bool] = []
        for first in range(0, len(droppings), MOST_ITEMS):
            some = droppings[first : first + MOST_ITEMS]
            arguments = [part for each in some for part in (each.kind, each.name, each.seen, each.more)]
            done += [answer == "1" for answer in map(str, await self._scripts.run("drop", *arguments))]
        return done


def step_of(entry: str) -> tuple[str, int] | None:
    """The notification and the step that an entry of a channel's index stands for; None where it stands for none."""
    found = _is_step(entry)
    return (found[1], int(found[2])) if found else None
