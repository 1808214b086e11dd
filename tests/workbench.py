"""The Redis side of storage by itself: what tests of the scripts work at."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import fakeredis

from tocsin.domain.delivery import Channel
from tocsin.domain.settings import load
from tocsin.storage.attempts import Attempts
from tocsin.storage.facts import Journal
from tocsin.storage.flight_parts import Claim, InboxSettings
from tocsin.storage.flights import Flights
from tocsin.storage.inbox import InboxLists
from tocsin.storage.keys import Keys
from tocsin.storage.postgres import Postgres
from tocsin.storage.profiles import Profiles
from tocsin.storage.scripts import Scripts
from tocsin.storage.store import Store

LEASE_MS = 60_000
GONE_MS = 1
NEVER = 3_600_000


def place_of(keys: Keys, notification: UUID | str) -> tuple[str, str]:
    """The key and the field of a flight."""
    return keys.bucket(str(notification)[:18]), str(notification)[19:]


class Bench:
    """The Redis side of storage on one client."""

    def __init__(self, client: Any, *, cached: bool = True) -> None:
        self.client = client
        self.keys = Keys("t", "notifications")
        self.cached = cached
        self.run_by(Scripts(client, self.keys))

    def run_by(self, scripts: Scripts) -> None:
        """From now on `scripts` are what everything here is done by."""
        inbox = InboxSettings("notifications", self.cached, 60_000)
        self.scripts = scripts
        self.flights = Flights(self.client, scripts, self.keys, inbox)
        self.attempts = Attempts(scripts)
        self.journal = Journal(self.client, self.keys, scripts)
        self.lists = InboxLists(self.client, scripts, self.keys)
        self.profiles = Profiles(self.client, scripts, self.keys, 60_000)

    async def claim(
        self, channel: Channel, token: str = "t1", *, lease_ms: int = LEASE_MS, resend: bool = False
    ) -> list[Claim]:
        return await self.attempts.claim(channel, token, 100, lease_ms=lease_ms, attempts=3, resend=resend)

    async def sending(self, channel: Channel, token: str = "t1", *, lease_ms: int = LEASE_MS) -> list[Claim]:
        """Claimed and begun."""
        claims = await self.claim(channel, token, lease_ms=LEASE_MS)
        assert all(await self.attempts.begin(claims, token, lease_ms=lease_ms, detail={"provider": "p"}))
        return claims

    async def end_lease_of(self, notification: UUID, step: int) -> None:
        """The lease of a step that is being sent ran out a moment ago."""
        key, field = place_of(self.keys, notification)
        head, _, steps = str(await self.client.hget(key, field)).rpartition("|")
        parts = [each.split(",") for each in steps.split(";")]
        (sending,) = [each for each in parts if each[0] == str(step)]
        sending[4] = "1"
        await self.client.hset(key, field, f"{head}|{';'.join(map(','.join, parts))}")

    async def moves(self) -> list[tuple[str, int, str, dict[str, Any]]]:
        """(channel, attempt, status, detail) of every move told so far, in order."""
        return [
            (channel, attempt, status, detail)
            for fact in await self.facts()
            if fact["f"] == "moved"
            for _, _, channel, attempt, status, _, _, detail in fact["d"]
        ]

    async def facts(self) -> list[dict[str, Any]]:
        entries = await self.client.xrange(self.keys.facts)
        return [fact for _, fields in entries for fact in json.loads(fields["d"])]

    async def leftovers(self) -> set[str]:
        """What is still in motion."""
        names = await self.client.keys("t:*")
        return {name for name in names if name.split(":")[1] in {"flight", "due", "chunk", "recipients"}}


async def eventually(condition: Callable[[], Awaitable[Any]], limit_s: float = 5.0) -> Any:
    """What a condition answers once it holds."""
    deadline = asyncio.get_running_loop().time() + limit_s
    while not (value := await condition()):
        assert asyncio.get_running_loop().time() < deadline, "it did not come about"
        await asyncio.sleep(0.005)
    return value


@asynccontextmanager
async def store_without_postgres(changes: Mapping[str, Any] | None = None) -> AsyncIterator[Store]:
    """A store on fakeredis whose Postgres does not answer."""
    away = {"postgres.url": "postgresql://nobody@127.0.0.1:1/nothing", "redis.url": "redis://127.0.0.1:1"}
    settings = load({}).with_values({**away, **(changes or {})})
    postgres = Postgres(settings.postgres)
    made = Store(settings, postgres, fakeredis.FakeAsyncRedis(decode_responses=True))
    await made.profiles.mirrored_up_to(1)
    yield made
    await made.close()
    await postgres.close()
