"""The schedule of faults, drawn from the seed before the run begins, and how each is done."""

import asyncio
import os
import random
import signal
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from redis.exceptions import RedisError

from tests.torture import moods
from tests.torture.ledger import Fault, now_ms
from tests.torture.world import LEASE_S, SHUTDOWN_S, Member, World

WEIGHTS = {
    "kill_actors": 5,
    "kill_http": 3,
    "stop_actors": 3,
    "stop_http": 2,
    "freeze_actors": 3,
    "freeze_http": 1,
    "skew_actors": 2,
    "skew_http": 2,
    "stop_redis": 3,
    "kill_redis": 3,
    "empty_redis": 2,
    "stop_postgres": 3,
    "kill_postgres": 3,
    "provider_down": 4,
    "provider_stalls": 3,
    "provider_drops": 4,
    "provider_refuses": 3,
    "provider_limits": 2,
}
_LONGEST_S = {"freeze": (LEASE_S + 1, LEASE_S + 5), "skew": (15, 40), "stop_postgres": (1, 12), "provider": (3, 12)}


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault to come: when (seconds from the start), whom it is drawn for (0…1), for how long, and how far (-1…1)."""

    at_s: float
    kind: str
    whom: float
    lasts_s: float
    how_far: float


def schedule(seed: int, seconds: float, every_s: float, without: Sequence[str]) -> list[Planned]:
    """The faults of a run, the earliest first. All kinds come before one comes again."""
    chance = random.Random(f"{seed}:faults")
    kinds = {kind: weight for kind, weight in WEIGHTS.items() if not kind.startswith(tuple(without) or ("-",))}
    first = list(kinds)
    chance.shuffle(first)
    planned: list[Planned] = []
    at_s = chance.uniform(1, every_s)
    while at_s < seconds - 5 and kinds:
        kind = first.pop() if first else chance.choices(list(kinds), list(kinds.values()))[0]
        low, high = next((span for name, span in _LONGEST_S.items() if kind.startswith(name)), (0.1, 4))
        planned.append(Planned(at_s, kind, chance.random(), chance.uniform(low, high), chance.uniform(-1, 1)))
        at_s += chance.uniform(0.3, 1.7) * every_s
    return planned


class Faults:
    """Does what is planned; one whose victim is in hand already waits for it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ledger = world.ledger
        self._doing: set[asyncio.Task[None]] = set()

    async def run(self, planned: Sequence[Planned]) -> None:
        """Returns when every fault is over."""
        start = asyncio.get_running_loop().time()
        for each in planned:
            await asyncio.sleep(max(0.0, start + each.at_s - asyncio.get_running_loop().time()))
            task = asyncio.create_task(self._do(each))
            self._doing.add(task)
            task.add_done_callback(self._doing.discard)
        if self._doing:
            await asyncio.wait(tuple(self._doing))

    async def _do(self, planned: Planned) -> None:
        what, _, whom = planned.kind.partition("_")
        if whom in {"actors", "http"}:
            members = [member for member in self._world.members if member.name.startswith(whom)]
            await self._on_member(planned, what, members[int(planned.whom * len(members))])
        elif whom in {"redis", "postgres"}:
            await self._on_server(planned, what, whom)
        else:
            channel = ("EMAIL", "SMS", "PUSH")[int(planned.whom * 3)]
            await self._on_provider(planned, whom, channel)

    async def _on_member(self, planned: Planned, what: str, member: Member) -> None:
        while member.busy or not member.runs:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        member.busy = True
        does: dict[str, Callable[[Member, Planned], Awaitable[None]]] = {
            "kill": self._kill, "stop": self._stop, "freeze": self._freeze, "skew": self._skew
        }  # fmt: skip
        try:
            with self._noted(planned.kind, member.name):
                await does[what](member, planned)
        finally:
            member.busy = False

    async def _kill(self, member: Member, planned: Planned) -> None:
        member.signal(signal.SIGKILL)
        await self._ended(member, 5)
        await asyncio.sleep(planned.lasts_s)
        member.start()

    async def _stop(self, member: Member, planned: Planned) -> None:
        await self._terminate(member)
        await asyncio.sleep(planned.lasts_s / 2)
        member.start()

    async def _freeze(self, member: Member, planned: Planned) -> None:
        member.signal(signal.SIGSTOP)
        await asyncio.sleep(planned.lasts_s)
        member.signal(signal.SIGCONT)

    async def _skew(self, member: Member, planned: Planned) -> None:
        """Minutes before or behind, up to ten."""
        member.signal(signal.SIGKILL)
        await self._ended(member, 5)
        member.start(skew_s=round(planned.how_far * 600))
        await asyncio.sleep(planned.lasts_s)
        await self._terminate(member)
        member.start()

    async def _terminate(self, member: Member) -> None:
        """SIGTERM; one that has not ended in its time is noted and killed."""
        member.signal(signal.SIGTERM)
        began_ms = now_ms()
        if not await self._ended(member, SHUTDOWN_S + self._world.margin_s):
            self._ledger.trouble.append(f"{member.name} did not end within {SHUTDOWN_S} s of SIGTERM: {member.said()}")
            member.signal(signal.SIGKILL)
            await self._ended(member, 5)
        elif member.process is not None and member.process.returncode not in (0, -signal.SIGTERM):
            self._ledger.trouble.append(
                f"{member.name} ended with {member.process.returncode} at SIGTERM of {began_ms}: {member.said()}"
            )

    async def _ended(self, member: Member, limit_s: float) -> bool:
        with suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(member.wait, limit_s)
        return not member.runs

    async def _on_server(self, planned: Planned, what: str, whom: str) -> None:
        world = self._world
        busy = f"{whom}_busy"
        while getattr(world, busy):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        setattr(world, busy, True)
        try:
            with self._noted(planned.kind, whom):
                if what == "empty":
                    await asyncio.to_thread(_empty, world)
                    return
                server = world.redis_server if whom == "redis" else world.postgres_server
                if what == "kill" and server.pid:
                    # Redis at once; Postgres as it is stopped at once, which leaves its children no time either.
                    os.kill(server.pid, signal.SIGKILL if whom == "redis" else signal.SIGQUIT)
                await asyncio.to_thread(server.stop)
                await asyncio.sleep(planned.lasts_s)
                await asyncio.to_thread(server.start)
        finally:
            setattr(world, busy, False)

    async def _on_provider(self, planned: Planned, what: str, channel: str) -> None:
        mood = self._world.moods[channel]
        while mood.down or mood.shares is not moods.USUAL:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        mood.down = what == "down"
        mood.shares = moods.BAD.get(what, mood.shares)
        with self._noted(planned.kind, channel):
            if mood.down:
                await self._world.shut(channel)
            await asyncio.sleep(planned.lasts_s)
            if mood.down:
                await self._world.reopen(channel)
        mood.down, mood.shares = False, moods.USUAL

    def _noted(self, kind: str, target: str) -> "_Noted":
        return _Noted(self._ledger.faults, Fault(kind, target, now_ms()))


class _Noted:
    """Notes a fault as it begins, and its end."""

    def __init__(self, faults: list[Fault], fault: Fault) -> None:
        self._faults = faults
        self._fault = fault

    def __enter__(self) -> None:
        self._faults.append(self._fault)

    def __exit__(self, *_: object) -> None:
        self._fault.until_ms = now_ms()


def _empty(world: World) -> None:
    """FLUSHALL, once Redis answers."""
    for _ in range(100):
        with suppress(RedisError):
            world.redis.flushall()
            return
