"""Taking events that have a key (E3): one live event has it; one that says the same does nothing, another one replaces
what has not gone out.

Requests with one key take turns by a lock in Redis. What decides is the key's row in Postgres, locked with the commit
(event_keys.py), so that it holds with Redis away too; with Postgres away it is what Redis remembers of the last event.
Postgres may be behind: then it is waited for where its word alone could be wrong.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, Final
from uuid import UUID

from tocsin.domain.errors import KeyBusy, PostgresAway, RedisAway, Unavailable
from tocsin.storage import event_keys
from tocsin.storage.accepted import Accepted
from tocsin.storage.entrance import Entrance
from tocsin.storage.event_keys import REPLACED, UNCHANGED, WHY_REPLACED, Holder, answered
from tocsin.storage.intake import COMMIT_MS, Intake, Taken
from tocsin.storage.keys import Keys
from tocsin.storage.locks import Locks
from tocsin.storage.postgres import Postgres
from tocsin.storage.redis import told

_TURN_S: Final = 3.0
_LOOK_S: Final = 0.02
_JUST_NOW_S: Final = 0.5
_SOON_STORED: Final = 10
_BEHIND_S: Final = 2.0
_TOGETHER: Final = 1_000

Withdraw = Callable[[Sequence[UUID], str, str, int], Awaitable[int]]
"""Withdraws events, for a reason, by somebody, at a time in ms. Raises RedisAway."""


class Keyed:
    """Takes events with keys, on one event loop."""

    def __init__(
        self, client: Any, keys: Keys, postgres: Postgres, kept_ms: int, caught_up: Callable[..., Awaitable[bool]]
    ) -> None:
        self._caught_up = caught_up
        self._client = client
        self._keys = keys
        self._locks = Locks(client, keys)
        self._postgres = postgres
        self._kept_ms = kept_ms

    async def take(self, row: Accepted, intake: Intake, entrance: Entrance, withdraw: Withdraw) -> Taken:
        """Takes one event with a key. Raises what Intake.take does, and KeyBusy."""
        key, turn = row.event.event_key or "", AsyncExitStack()
        redis_there = await self._wait_turn(turn, key)
        try:
            try:
                outcome = await self._outcome(row, redis_there=redis_there)
                taken = await self._enter(row, outcome, entrance, withdraw)
            except PostgresAway:
                taken = await self._take_into_redis(row, intake, withdraw)
            if taken.replay is None and taken.told.get("result") != UNCHANGED:
                with suppress(Unavailable):
                    await self._remember(key, row)
        finally:
            with suppress(Unavailable):
                await turn.aclose()
        return taken

    async def holder_of(self, key: str) -> Holder | None:
        """The event that has a key, live or not; one that Postgres has not heard of is the last. Raises Unavailable."""
        remembered = None
        with suppress(RedisAway):
            remembered = await self._remembered(key)
        try:
            return await self._postgres.call(event_keys.holder_of, key, remembered)
        except PostgresAway:
            if remembered is None:
                raise
            return remembered

    async def mirror(self) -> None:
        """Remembers the events of the last days again, after Redis was lost. Raises Unavailable."""
        after = ""
        while page := await self._postgres.call(event_keys.recent, self._kept_ms, after, _TOGETHER):
            with told():
                async with self._client.pipeline(transaction=False) as pipeline:
                    for key, holder in page:
                        pipeline.set(self._keys.event_key(key), _text(holder), px=self._kept_ms, nx=True)
                    await pipeline.execute()
            after = page[-1][0]

    async def _outcome(self, row: Accepted, *, redis_there: bool) -> event_keys.Outcome:
        """What Postgres says of it. What has gone out by now should count as gone out, and what was taken while
        Postgres was away as taken. With Redis away nobody can tell more than Postgres has. Raises KeyBusy."""
        sure = not redis_there or await self._caught_up(_JUST_NOW_S, most_behind=_SOON_STORED)
        if not sure:
            remembered = await self._remembered(row.event.event_key or "")
            try:
                return await self._commit(row, event_keys.Doubt(remembered.event if remembered else None))
            except KeyBusy:
                if not await self._caught_up(_BEHIND_S):
                    raise
        return await self._commit(row, None, may_replace=redis_there)

    async def _commit(
        self, row: Accepted, doubt: event_keys.Doubt | None, *, may_replace: bool = True
    ) -> event_keys.Outcome:
        now_ms = time.time_ns() // 1_000_000

        def store() -> event_keys.Outcome:
            return event_keys.store_keyed(row, now_ms, may_replace=may_replace, doubt=doubt)

        return await self._postgres.call_within(COMMIT_MS, store)

    async def _enter(self, row: Accepted, outcome: event_keys.Outcome, entrance: Entrance, withdraw: Withdraw) -> Taken:
        if outcome.replay is not None:
            return Taken("postgres", outcome.replay)
        if outcome.unchanged is not None:
            return _unchanged("postgres", outcome.unchanged)
        if outcome.replaced is not None:
            # Before the new one starts. Should it fail, a job does it (actors/cancelling.py).
            with suppress(RedisAway):
                await withdraw([outcome.replaced], WHY_REPLACED, row.event.sender, time.time_ns() // 1_000_000)
        await entrance.enter([row])
        return _taken("postgres", outcome.replaced)

    async def _take_into_redis(self, row: Accepted, intake: Intake, withdraw: Withdraw) -> Taken:
        event = row.event
        holder = await self._remembered(event.event_key or "")
        if holder is None or holder.event == event.id:
            return await intake.take_into_redis(row)
        if holder.signature == event.signature:
            standing = await self._is_being_routed(holder.event)
            if standing:
                return _unchanged("redis", holder.event)
            if standing is False:
                raise PostgresAway("whether something of the event with this key has not gone out is known there")
            return await intake.take_into_redis(row)
        # Before the old one goes: else it would be gone and the new one refused.
        await intake.check_redis(row)
        await withdraw([holder.event], WHY_REPLACED, event.sender, time.time_ns() // 1_000_000)
        more = {"result": REPLACED, "replacedId": str(holder.event)}
        taken = await intake.take_into_redis(answered(row, more))
        return Taken(taken.durability, taken.replay, more)

    async def _wait_turn(self, turn: AsyncExitStack, key: str) -> bool:
        """Waits until nobody else takes an event with this key; False where Redis cannot tell. Raises KeyBusy."""
        until_s = time.monotonic() + _TURN_S
        try:
            while not await turn.enter_async_context(self._locks.lock(f"key:{key}")):
                if time.monotonic() > until_s:
                    raise KeyBusy("another event with this key is being taken")
                await asyncio.sleep(_LOOK_S)
        except Unavailable:
            return False
        return True

    async def _remember(self, key: str, row: Accepted) -> None:
        with told():
            holder = Holder(row.event.id, row.event.signature or "")
            await self._client.set(self._keys.event_key(key), _text(holder), px=self._kept_ms)

    async def _remembered(self, key: str) -> Holder | None:
        with told():
            text = await self._client.get(self._keys.event_key(key))
        event, _, signature = (text or "").partition("|")
        return Holder(UUID(event), signature) if event else None

    async def _is_being_routed(self, event: UUID) -> bool | None:
        """Whether people of an event are still to be routed, as Redis has it; None where it has forgotten the event."""
        with told():
            names = ("content", "fanned", "chunks", "routed", "given_up")
            content, fanned, chunks, *done = await self._client.hmget(self._keys.event(event), names)
        if content is None:
            return None
        return bool(fanned == "0" or int(chunks or 0) > sum(int(count or 0) for count in done))


def _text(holder: Holder) -> str:
    return f"{holder.event}|{holder.signature}"


def _unchanged(durability: str, event: UUID) -> Taken:
    return Taken(durability, None, {"id": str(event), "result": UNCHANGED})


def _taken(durability: str, replaced: UUID | None) -> Taken:
    told_too = {"result": REPLACED, "replacedId": str(replaced)} if replaced else {}
    return Taken(durability, None, told_too)
