"""Everything that callers and people do in a run: they post, read, cancel, and change their minds."""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

from tests.torture.callers import Callers
from tests.torture.kinds import CROWD, USERS, Body, Making, crowd, to_crowd, user_of
from tests.torture.ledger import Accepted, OptOut, Repeat, now_ms
from tests.torture.world import World

_POSTERS = 6
_READ, _CANCELLED, _REPEATED, _BULK = 0.2, 0.05, 0.08, 0.15
_MIND_EVERY_S, _DEVICE_EVERY_S, _REPLAY_EVERY_S = 0.7, 3.0, 8.0
_CROWD_FIRST_S, _CROWD_EVERY_S = 8.0, 60.0
_AT_ONCE = 500
_WORDS = {"EMAIL": "email", "SMS": "sms", "PUSH": "push"}


class Driver:
    """Posts `rate` deliveries a second until `deadline`, and everything that follows from it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ledger = world.ledger
        self._chance = random.Random(f"{world.options.seed}:driver")
        self._callers = Callers(world.doors, random.Random(f"{world.options.seed}:callers"), world.ledger)
        self._making = Making(self._chance)
        self._later: set[asyncio.Task[None]] = set()
        self._changing: set[int] = set()
        self._posts = 0
        self.asked = 0
        """Deliveries asked for in events that were accepted, but for those to the crowd."""
        self.replayed = 0

    async def people(self) -> None:
        """Stores who is told later."""
        for first in range(0, USERS, 25):
            await asyncio.gather(*(self._store(number) for number in range(first, min(USERS, first + 25))))
        everybody = crowd()
        for first in range(0, CROWD, _AT_ONCE):
            await self._callers.ask("POST", "/api/users", {"users": everybody[first : first + _AT_ONCE]})

    async def run(self, seconds: float) -> None:
        """Returns when everything that was begun has been answered or given up."""
        loop = asyncio.get_running_loop()
        self._start, self._end = loop.time(), loop.time() + seconds
        posters = [self._post_on() for _ in range(_POSTERS)]
        others = (self._tell_crowd(), self._change_minds(), self._add_devices(), self._replay())
        await asyncio.gather(*posters, *others)
        while self._later:
            await asyncio.wait(tuple(self._later))

    async def counts(self, event: str) -> dict[str, Any] | None:
        """What the API says of an event."""
        return await self._callers.ask("GET", f"/api/events/{event}")

    async def close(self) -> None:
        await self._callers.close()

    async def _store(self, number: int) -> None:
        user = user_of(number)
        details = {"email": f"{user}@torture.test", "phone": f"+1628{2_000_000 + number}"}
        await self._callers.ask("PUT", f"/api/users/{user}", details)
        for device in range(1 + number % 2):
            await self._callers.ask("PUT", f"/api/users/{user}/devices", {"token": f"token-{number}-{device}"})
        if number % 20 == 0:
            await self._callers.ask("PUT", f"/api/users/{user}/devices", {"token": f"dead-device-{number}"})

    async def _post_on(self) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < self._end:
            if self.asked >= self._world.options.rate * (loop.time() - self._start):
                await asyncio.sleep(0.05)
                continue
            await (self._post_bulk() if self._chance.random() < _BULK else self._post_one())

    async def _post_one(self) -> None:
        await self._post(*self._making.one())

    async def _tell_crowd(self) -> None:
        """Beside what the others ask for, so that there is one however short the run is."""
        await asyncio.sleep(_CROWD_FIRST_S)
        while asyncio.get_running_loop().time() < self._end:
            await self._post(to_crowd(), 0)
            await asyncio.sleep(_CROWD_EVERY_S)

    async def _post(self, body: Body, deliveries: int) -> None:
        self.asked += deliveries  # counted before the answer, so that others post meanwhile
        key = self._key()
        answer = await self._callers.ask("POST", "/api/notifications", body, key=key)
        if answer is None:
            self.asked -= deliveries
            return
        self._note(answer, key)
        if self._chance.random() < _REPEATED:
            self._do_later(self._repeat(body, key, answer["id"], self._chance.uniform(0, 5)))

    async def _post_bulk(self) -> None:
        events: list[Body] = []
        deliveries = 0
        for _ in range(self._chance.randint(2, 5)):
            body, more = self._making.one()
            events.append(body)
            deliveries += more
        self.asked += deliveries
        key = self._key()
        answer = await self._callers.ask("POST", "/api/notifications/bulk", {"notifications": events}, key=key)
        if answer is None:
            self.asked -= deliveries
            return
        for item in answer["results"]:
            if item["success"]:
                self._note(item["result"], f"{key}:{item['index']}")

    async def _repeat(self, body: Body, key: str, event: str, delay_s: float) -> None:
        """The same request again is the same event."""
        await asyncio.sleep(delay_s)
        answer = await self._callers.ask("POST", "/api/notifications", body, key=key)
        if answer is not None:
            again = _accepted(answer, key)
            self._ledger.repeats.append(Repeat(event, again.id, again.durability, again.answered_ms))
            self._ledger.accepted.setdefault(again.id, again)

    def _note(self, answer: dict[str, Any], key: str) -> None:
        event = answer["id"]
        self._ledger.accepted[event] = _accepted(answer, key)
        for each in answer["notifications"]:
            if self._chance.random() < _READ:
                self._do_later(self._read(each["id"], each["recipientId"], self._chance.uniform(0, 11)))
        if self._chance.random() < _CANCELLED:
            self._do_later(self._cancel(event, self._chance.uniform(0, 9)))

    async def _read(self, notification: str, user: str, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        if await self._callers.ask("POST", f"/api/notifications/{notification}/read", user=user) is not None:
            self._ledger.reads[notification] = now_ms()

    async def _cancel(self, event: str, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        if await self._callers.ask("POST", f"/api/events/{event}/cancel", {"reason": "changed plans"}) is not None:
            self._ledger.cancels[event] = now_ms()

    async def _change_minds(self) -> None:
        while asyncio.get_running_loop().time() < self._end:
            await asyncio.sleep(_MIND_EVERY_S)
            number = self._chance.randrange(USERS)
            if number not in self._changing:
                self._changing.add(number)
                self._do_later(self._switch(number, self._chance.choice(list(_WORDS)), self._chance.uniform(2, 15)))

    async def _switch(self, number: int, channel: str, for_s: float) -> None:
        """Off, and after a while on again."""
        user = user_of(number)
        path = f"/api/users/{user}/preferences"
        try:
            off = await self._callers.ask("PUT", path, {_WORDS[channel]: False})
            if off is not None and not self._callers.doubtful(path):
                off_ms = now_ms()
                await asyncio.sleep(for_s)
                self._ledger.opt_outs.append(OptOut(user, channel, off_ms, now_ms()))
            await self._callers.ask("PUT", path, {})
        finally:
            self._changing.discard(number)

    async def _add_devices(self) -> None:
        """Devices that are dead, which the first push to them tells."""
        while asyncio.get_running_loop().time() < self._end:
            await asyncio.sleep(_DEVICE_EVERY_S)
            number = self._chance.randrange(USERS)
            token = {"token": f"dead-device-{number}-{self._posts}"}
            self._do_later(self._add(f"/api/users/{user_of(number)}/devices", token))

    async def _replay(self) -> None:
        """What was given up is tried again, as an admin does when a provider is back."""
        while asyncio.get_running_loop().time() < self._end:
            await asyncio.sleep(_REPLAY_EVERY_S)
            answer = await self._callers.ask("POST", "/api/dead-letters/retry", {"limit": 50})
            self.replayed += answer["replayed"] if answer else 0

    async def _add(self, path: str, token: Body) -> None:
        await self._callers.ask("PUT", path, token)

    def _key(self) -> str:
        self._posts += 1
        return f"torture-{self._posts}"

    def _do_later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)


def _accepted(answer: dict[str, Any], key: str) -> Accepted:
    """How many a crowd is nobody knows when it is answered; but here it is always the same."""
    recipients = CROWD if answer["recipientCount"] is None else answer["recipientCount"]
    return Accepted(answer["id"], answer["durability"], now_ms(), recipients, key)
