"""Both stores behind one door, for one event loop: what http/ and actors/ ask for that takes more than one of them."""

import asyncio
import os
import socket
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from loguru import logger

from tocsin.domain.breaker import BreakerRules
from tocsin.domain.errors import PostgresAway, RedisAway, Unavailable
from tocsin.domain.event import Event, Recipient
from tocsin.domain.settings import Settings
from tocsin.storage import bad_facts, installation, users
from tocsin.storage.accepted import Accepted, Idempotency
from tocsin.storage.attempts import Attempts
from tocsin.storage.breakers import Breakers
from tocsin.storage.by import By
from tocsin.storage.calls import Calls, correlation
from tocsin.storage.depths import ALIVE_S, Depths, keep_counts, measure, worked_on
from tocsin.storage.entrance import Entrance
from tocsin.storage.facts import Entry, Journal
from tocsin.storage.first_chunks import FirstChunks
from tocsin.storage.flight_parts import InboxSettings
from tocsin.storage.flights import Flights
from tocsin.storage.inbox import InboxLists
from tocsin.storage.inbox_view import InboxView
from tocsin.storage.intake import Intake, Taken
from tocsin.storage.keyed import Keyed
from tocsin.storage.keys import Keys
from tocsin.storage.keys_mirror import KeysMirror
from tocsin.storage.life import Life
from tocsin.storage.life_keeper import LifeKeeper, settled_s
from tocsin.storage.locks import Locks
from tocsin.storage.marking_read import Read, Reading
from tocsin.storage.memory import Marks, MemoryGuard, Work
from tocsin.storage.motion import Motion
from tocsin.storage.people import People
from tocsin.storage.postgres import Postgres
from tocsin.storage.profiles import Profiles
from tocsin.storage.rates import Rates
from tocsin.storage.recall import Recall
from tocsin.storage.redis import connect, info, told
from tocsin.storage.reentry import Reentry
from tocsin.storage.repeats import Repeats
from tocsin.storage.revival import Revival
from tocsin.storage.routed import listed as listed_in
from tocsin.storage.scripts import Scripts, Step
from tocsin.storage.settling import Settling, Telling
from tocsin.storage.stops import Stops
from tocsin.storage.wakes import Wakes

_DAY_MS = 86_400_000
_CLOSE_S = 0.5


class Store:
    """Made by `open`; every method raises RedisAway or PostgresAway only where it cannot do without."""

    def __init__(self, settings: Settings, postgres: Postgres, client: Any) -> None:
        keys = Keys.of(settings.redis)
        self.life = life = Life()
        scripts = Scripts(client, keys, life)
        inbox = InboxSettings(keys.inbox_prefix, settings.cache.enabled, settings.cache.ttl)
        self._client = client
        self._keys = keys
        self._scripts = scripts
        self.settings = settings
        self.postgres = postgres
        section = settings.breaker
        breaker = BreakerRules(section.failures, section.rest, section.cap, section.successes)
        self.flights = Flights(client, scripts, keys, inbox, breaker)
        self.attempts = Attempts(scripts, breaker)
        self.breakers = Breakers(client, keys)
        self.rates = Rates(client, keys)
        self.motion = Motion(client, scripts, keys)
        self.facts = Journal(client, keys, scripts)
        self._settling = Settling(scripts)
        self.lists = InboxLists(client, scripts, keys)
        self.inbox = InboxView(self.lists, postgres)
        self._reading = Reading(self.flights, self.lists, postgres)
        self._locks = Locks(client, keys)
        self.wakes = Wakes(client, keys)
        self.profiles = Profiles(client, scripts, keys, max(settings.cache.ttl, _DAY_MS))
        self.repeats = Repeats(client, keys)
        self.first_chunks = FirstChunks(scripts, self.flights)
        self.calls = Calls(client, scripts, keys)
        self.keys_mirror = KeysMirror(client, keys)
        self.people = People(self.flights, self.profiles, postgres)
        self.stops = Stops(client, keys, scripts, self.flights, self.people)
        self.memory = MemoryGuard(client, keys, Marks.of(settings.redis))
        name = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self.keeper = LifeKeeper(life, scripts, postgres, name)
        self._entrance = Entrance(scripts, self.flights, self.calls)
        learn, settled = self.learn_durability, partial(settled_s, client, life)
        self._intake = Intake(self._entrance, postgres, self.memory, learn, settled)
        self.keyed = Keyed(client, keys, postgres, self.flights.longest_ms, self.caught_up)
        self.revival = Revival(self.flights, Reentry(client, scripts, keys, self.refilling()), postgres, self.caught_up)

    @classmethod
    async def open(cls, settings: Settings, postgres: Postgres) -> "Store":
        """A store on this event loop. Does not fail when a server is away; it says so when it is asked."""
        if settings.redis.url is None:
            raise ValueError("redis.url is set before a store is opened")
        store = cls(settings, postgres, connect(settings.redis.url))
        await store.learn_durability()
        await store.keeper.learn()
        return store

    async def close(self) -> None:
        """Lets go of Redis; Postgres is its maker's to close."""
        if self.life.epoch:
            await self.keeper.leave()
        await self._reading.close()
        await self.repeats.close()
        # One that hangs lets nobody take leave.
        with suppress(RedisAway), told():
            await asyncio.wait_for(self._client.aclose(), _CLOSE_S)

    def recall(self, coming: str) -> Recall:
        """What fills Redis for the life `coming`."""
        scripts = Scripts(self._client, self._keys, Life(f"next:{coming}"))
        flights = self.flights.working_by(scripts)
        return Recall(self._client, self._keys, coming, scripts, flights, self.profiles)

    def refilling(self) -> Recall:
        """What gives this life of Redis back what of it was lost."""
        return Recall(self._client, self._keys, "", self._scripts, self.flights, self.profiles)

    async def ping(self) -> None:
        """Raises RedisAway when Redis does not answer."""
        with told():
            await self._client.ping()

    async def depths(self) -> Depths:
        """What waits in Redis. Raises RedisAway."""
        return await measure(self._client, self._keys)

    async def keep_counts(self, *, dead_letters: int, held: int) -> None:
        """Keeps what was counted in Postgres, to be seen in `depths`. Raises RedisAway."""
        await keep_counts(self._client, self._keys, dead_letters=dead_letters, held=held)

    async def alive(self, process: str, queues: Iterable[str]) -> None:
        """Says that a process runs actors, and works on `queues`; true for 15 seconds."""
        await self._scripts.run("alive", process, ALIVE_S, *queues)

    async def unattended(self, queues: Iterable[str]) -> list[str]:
        """Which of `queues` no process has worked on in the last 15 seconds. Raises RedisAway."""
        attended = await worked_on(self._client, self._keys)
        return [queue for queue in queues if queue not in attended]

    async def take_redis(self) -> bool:
        """Whether what Redis holds belongs to what Postgres holds; makes it so where it is nobody's. Raises
        Unavailable."""
        mine = await self.postgres.call(installation.installation)
        return await installation.take_redis(self._client, self._keys, mine)

    @property
    def redis_is_durable(self) -> bool:
        """Whether an event may rest in Redis alone while Postgres is away."""
        return self._intake.redis_is_durable

    async def learn_durability(self) -> None:
        """Asks Redis whether it keeps what it is told, which decides whether an event may rest in it alone."""
        try:
            persistence = await info(self._client, "persistence")
        except RedisAway:
            return
        self._intake.redis_is_durable = bool(persistence.get("aof_enabled"))

    async def accept(self, event: Event, recipients: Sequence[Recipient], idempotency: Idempotency | None) -> Taken:
        """Takes an event in and calls its fan-out. `idempotency.answer` is what a repetition is answered. Raises
        Unavailable, KeyMismatch and StillRunning."""
        if idempotency is None:
            return await self._accept(event, recipients, None)
        try:
            earlier = await self.repeats.begin(idempotency)
        except RedisAway:
            earlier = None
            with suppress(PostgresAway):
                await self.keeper.store_resting()
        if earlier is not None:
            return Taken("postgres", earlier)
        try:
            taken = await self._accept(event, recipients, idempotency)
        except (RedisAway, asyncio.CancelledError):
            # Redis may have it all the same, until Postgres knows.
            self.repeats.leave(idempotency)
            raise
        except BaseException:
            with suppress(Unavailable):
                await self.repeats.abandon(idempotency)
            raise
        with suppress(Unavailable):
            answer = taken.replay or (idempotency.answer or {}) | taken.told
            await self.repeats.finish(idempotency, answer | {"durability": taken.durability})
        return taken

    async def _accept(self, event: Event, recipients: Sequence[Recipient], idempotency: Idempotency | None) -> Taken:
        row = Accepted(event, list(recipients), idempotency)
        if event.event_key is None:
            return await self._intake.take(row)
        with suppress(RedisAway):
            await self.memory.check(Work.ACCEPT)
        return await self.keyed.take(row, self._intake, self._entrance, self.stops.withdraw)

    async def read(self, user: str, notifications: Sequence[UUID]) -> list[Read]:
        """Marks notifications of `user` read, in both stores before it answers (marking_read.py). Raises RedisAway, and
        PostgresAway."""
        return await self._reading.read(user, notifications)

    async def caught_up(self, limit_s: float = 2.0, *, most_behind: int | None = None) -> bool:
        """Waits until Postgres has what the journal holds now, so that a caller reads what it wrote; not where more
        than `most_behind` entries wait. Best effort."""
        try:
            if most_behind is not None and await self.facts.length() > most_behind:
                return False
            await self.nudge_persister()
            return await self.facts.drained(limit_s, lambda: self.postgres.is_away)
        except Unavailable:
            return False

    async def settle(self, tellings: Sequence[Telling], facts: Sequence[dict[str, Any]] = ()) -> list[bool]:
        """Keeps what became known from elsewhere, all of it or nothing (settling.py). Raises RedisAway."""
        ended = await self._settling.tell(tellings, facts)
        await self.nudge_persister()
        return ended

    async def stored(self, entries: Sequence[Entry]) -> None:
        """After the commit: trims the lists, forgets the journal's entries, and publishes what was not shown yet. What
        ends in between is done again, for the entries are forgotten after the lists."""
        listed = list(_listed(entries))
        shown = [(user, note, event, at) for user, note, event, at, published in listed if published]
        await self.lists.trim(shown)
        await self.facts.done([identifier for identifier, _ in entries])
        await self.lists.publish([(user, note, at) for user, note, _, at, published in listed if not published])

    async def nudge_persister(self) -> None:
        """Calls the persister, unless a call waits."""
        await self.calls.put("persist", "persist", most_waiting=1)

    def persister_call(self) -> Step:
        """What calls the persister, unless a call waits; to be sent beside what tells it something."""
        return self.calls.step("persist", "persist", most_waiting=1, cid=correlation.get())

    async def retry_bad_facts(self, ids: Sequence[str] | None, by: By) -> tuple[int, int]:
        """Puts entries that could not be stored back into the journal: those named, or the oldest. Answers how many,
        and how many are still kept. One that ends in between is in both, and stored once."""
        found = await self.postgres.call(bad_facts.kept, ids, bad_facts.MOST_AT_ONCE)
        for facts in found.values():
            await self.facts.append(facts)
        remaining = await self.postgres.call(bad_facts.forget, list(found), by)
        if found:
            await self.nudge_persister()
        return len(found), remaining

    async def events(self, wanted: Iterable[UUID]) -> dict[UUID, Event]:
        return await self.people.events(wanted)

    async def drop_tokens(self, user: str, tokens: Sequence[str]) -> None:
        """Forgets device tokens that will never work again."""
        try:
            await self.postgres.call(users.delete_tokens, user, list(tokens))
            await self.profiles.keep(await self.postgres.call(users.contacts, [user]))
        except (PostgresAway, RedisAway) as error:
            logger.warning("dead device tokens are kept for now: {}", error)

    def lock(self, name: str) -> AbstractAsyncContextManager[bool]:
        """Whether this process may do what `name` says now (locks.py). Raises RedisAway."""
        return self._locks.lock(name)

    async def once(self, name: str, every_ms: int) -> bool:
        """Whether nobody was told so of `name` in the last `every_ms`. Raises RedisAway."""
        return await self._locks.once(name, every_ms)


def _listed(entries: Sequence[Entry]) -> Iterable[tuple[str, str, str, int, bool]]:
    """(user, notification, event, listed_ms, published) of every in-app notification in journal entries."""
    for _, facts in entries:
        for fact in facts:
            if fact["f"] == "routed":
                for user, notification, listed_ms in listed_in(fact):
                    yield user, notification, fact["e"], listed_ms, fact["published"]
            elif fact["f"] == "listed":
                for notification, user, listed_ms in fact["n"]:
                    yield user, notification, fact["e"], listed_ms, fact["published"]
