"""What is in motion: every change of an event, a notification or a delivery is one script (docs/adr/0001, 0002)."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID, uuid4

from tocsin.domain.breaker import NEVER, BreakerRules
from tocsin.domain.delivery import Channel
from tocsin.domain.event import Event, Recipient
from tocsin.domain.plan import Priority
from tocsin.domain.rate import Rate
from tocsin.storage import testimony
from tocsin.storage.breakers import name_of
from tocsin.storage.flight_parts import (
    Again,
    Chunk,
    InboxSettings,
    OpenFlight,
    Page,
    Progress,
    ReadAnswer,
    Routed,
    Routing,
    Walk,
    Walked,
    arguments_of,
    text_of,
    text_of_walk,
)
from tocsin.storage.keys import Keys
from tocsin.storage.profiles import INLINE_LONGER_MS
from tocsin.storage.rates import limit_of
from tocsin.storage.redis import told
from tocsin.storage.scripts import MOST_ITEMS, Scripts, Step

_DAY_MS: Final = 86_400_000
READ_MARKER_MS: Final = 3_600_000
_RESTORED_KEPT_MS: Final = 600_000
# How long an event or chunk is left alone after its actor was called: longer than the work takes, short enough that a
# call lost with its process is made again soon.
_GUARD_MS: Final = 5_000
_MOST_OPEN_CHUNKS: Final = 20
_PROGRESS: Final = ("cursor", "named", "horizon", "entry", "size", "before")


class Flights:
    """The scripts by name, with their arguments and answers in our own types. All raise RedisAway."""

    def __init__(
        self, client: Any, scripts: Scripts, keys: Keys, inbox: InboxSettings, breaker: BreakerRules = NEVER
    ) -> None:
        self._client = client
        self._scripts = scripts
        self._keys = keys
        self._inbox = inbox
        self._breaker = breaker

    async def accept(self, event: Event, recipients: Sequence[Recipient], fact: dict[str, Any] | None) -> bool:
        """Takes an event in; False when it was there. `fact` is given where Postgres does not have the event yet."""
        step = self.accepting(event, recipients, fact)
        taken = bool(await self._scripts.run(step.name, *step.arguments))
        if fact:
            self._scripts.life.remember(fact)
        return taken

    def accepting(
        self, event: Event, recipients: Sequence[Recipient], fact: dict[str, Any] | None, again: Again | None = None
    ) -> Step:
        """What `accept` runs, to be sent together with other steps. `again` is given after a loss of Redis."""
        people = (person.model_dump_json(exclude_none=True) for person in recipients)
        told_later = json.dumps(fact, separators=(",", ":")) if fact else ""
        mandatory = "1" if event.mandatory else "0"
        content = event.model_dump_json()
        walk = again.walk if again else Walk(len(recipients)) if event.audience else None
        whole = "1" if len(recipients) == (walk.named if walk else event.recipient_count) else "0"
        anew = f"{again.routed}|{_certainty(again)}" if again else ""
        given = (event.id, content, event.type, mandatory, _GUARD_MS, told_later, whole, anew, text_of_walk(walk))
        return Step("accept", (*given, *people))

    async def event(self, event: UUID) -> Event | None:
        """The event's content, while something of it is in motion or cached."""
        with told():
            content = await self._client.hget(self._keys.event(event), "content")
        return Event.model_validate_json(content) if content else None

    async def events(self, wanted: Iterable[UUID]) -> dict[UUID, Event]:
        """The content of events, those of which it is there."""
        wanted = list(wanted)
        with told():
            async with self._client.pipeline(transaction=False) as pipeline:
                for event in wanted:
                    pipeline.hget(self._keys.event(event), "content")
                found = zip(wanted, await pipeline.execute(), strict=True)
        return {event: Event.model_validate_json(content) for event, content in found if content}

    async def to_fan_out(self, event: UUID) -> tuple[Event, Progress] | None:
        """The event's content and how far its fan-out is; None where Redis has forgotten it."""
        with told():
            content, *told_of = await self._client.hmget(self._keys.event(event), ("content", *_PROGRESS))
        return (Event.model_validate_json(content), _progress_of(told_of)) if content else None

    async def named(self, event: UUID) -> list[str]:
        """The ids of the recipients who were named, as far as they were entered in this life of Redis."""
        with told():
            people = await self._client.lrange(self._keys.recipients(event), 0, -1)
        return [json.loads(person)["id"] for person in people]

    async def take_page(
        self, event: Event, cursor: str, walked: Walked | None = None, beside: Sequence[Step] = ()
    ) -> Page:
        """Makes the named recipients from `cursor` on a chunk, or the people of the audience that come next; without
        them it is told whether there is room for a page of it. What is `beside` is sent with it."""
        page = self._paging(event, cursor, walked)
        return Page.of(await self._scripts.run_beside(page.name, page.arguments, beside))

    async def take_pages(
        self, event: Event, cursor: str, found: Sequence[Walked], beside: Sequence[Step] = ()
    ) -> list[Page]:
        """The same for people of the audience who come one after the other, in one trip; where some are not made a
        chunk, none of those behind them is."""
        cursors = (cursor, *(walked.cursor for walked in found))
        steps = [self._paging(event, at, walked) for at, walked in zip(cursors, found, strict=False)]
        return [Page.of(answer) for answer in await self._scripts.run_in_turn(steps, beside)]

    def _paging(self, event: Event, cursor: str, walked: Walked | None) -> Step:
        limits = (MOST_ITEMS, _GUARD_MS, _MOST_OPEN_CHUNKS, self.keep_ms(event))
        return Step("fan_out", (event.id, cursor, *limits, *(walked.arguments() if walked else ())))

    def making_first(self, event: UUID) -> tuple[Step, Step]:
        """What makes the recipients of an event who were named first a chunk, and what tells who is in it."""
        # How long it is kept is asked only of an event without anybody.
        limits = (MOST_ITEMS, _GUARD_MS, _MOST_OPEN_CHUNKS, self.longest_ms)
        return Step("fan_out", (event, "0", *limits)), Step("chunk", (event, 0))

    async def to_route(self, event: UUID, number: int) -> Chunk | None:
        """A chunk with its event; None when it was routed."""
        return Chunk.of(await self._scripts.run("chunk", event, number))

    async def route(
        self,
        event: Event,
        number: int,
        routings: Sequence[Routing],
        entry: str,
        beside: Sequence[Step] = (),
    ) -> Routed | None:
        """Makes a chunk's notifications, and keeps what was given inline; None when another has routed the chunk, or it
        is of another entry of the event. What is `beside` is sent with it."""
        step = self.routing(event, number, routings, entry)
        return Routed.of(await self._scripts.run_beside(step.name, step.arguments, beside))

    def routing(self, event: Event, number: int, routings: Sequence[Routing], entry: str) -> Step:
        """What `route` runs."""
        critical = "1" if event.priority is Priority.CRITICAL else "0"
        of_event = (event.id, number, entry, json.dumps(event.cid), critical)
        kept = (self.keep_ms(event), INLINE_LONGER_MS)
        return Step("route", (*of_event, *self._listing(), *kept, *arguments_of(routings)))

    async def escalate(
        self,
        channels: Iterable[Channel],
        providers: Mapping[Channel, str] | None = None,
        rates: Mapping[Channel, Rate] | None = None,
    ) -> tuple[list[str], bool]:
        """Starts what is due; answers whose actors to call, and whether more may be due already. They are named
        "e:<event>", "c:<event>:<n>", and "s:<channel>" for each of `channels` in which something may start, be it new,
        a retry or what a lease that ended left; not while the one of `providers` that carries it rests, or has been
        given what its one of `rates` allows."""
        looked_at: list[object] = []
        for channel in channels:
            provider = (providers or {}).get(channel)
            limit = limit_of(channel, provider, (rates or {}).get(channel))
            looked_at += [channel, name_of(self._breaker, channel, provider), limit]
        life = self._scripts.life
        epoch = life.epoch
        answer = await self._scripts.run("escalate", MOST_ITEMS, _GUARD_MS, *self._listing(), *looked_at)
        more, reached, *calls = answer
        if life.epoch == epoch:
            life.follow(int(reached))
        return calls, more == "1"

    async def read(self, user: str, notifications: Sequence[tuple[UUID, bool]]) -> list[ReadAnswer]:
        """Marks notifications read, each with whether it is known to be the user's; at most 100."""
        arguments = [part for identifier, owned in notifications for part in (identifier, "1" if owned else "0")]
        answer = await self._scripts.run_telling("read", READ_MARKER_MS, user, _token(), *arguments)
        answers = [ReadAnswer(state, int(read)) for state, read in (text.split("|") for text in answer)]
        noted = zip(notifications, answers, strict=True)
        changed = [(note, answer.read_ms) for (note, _), answer in noted if answer.state == "changed"]
        self._scripts.life.remember(*testimony.read(user, changed))
        return answers

    async def withdraw(self, event: UUID, notifications: Sequence[UUID] = (), *, alone: bool = False) -> int:
        """Cancels what waits of `notifications` (at most 100) of an event that Postgres has as withdrawn, and sees to
        it that Redis has it so too; where `alone` nothing else of the event is withdrawn. Answers how many deliveries
        were cancelled."""
        scope = "alone" if alone else "event"
        return int(await self._scripts.run("withdraw", event, self.longest_ms, scope, *notifications))

    async def now_ms(self) -> int:
        """The time by Redis's clock, which is the one that counts."""
        with told():
            seconds, microseconds = await self._client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def restore(self, flights: Sequence[OpenFlight], *, until_ms: int = 0) -> list[str]:
        """Puts back into motion what Redis does not have; at most 100 notifications. Answers for each step "restored",
        "there", or "cancelled". The caller knows that the journal holds nothing newer of them: what has ended since
        would start again. From `until_ms` (0: never) by Redis's clock nothing is done and all are "late": the caller
        was frozen, and does not hold any more what it locked."""
        step = self.restoring(flights, _RESTORED_KEPT_MS, until_ms)
        answers = [str(text) for text in await self._scripts.run(step.name, *step.arguments)]
        return answers if answers != ["late"] else ["late"] * sum(len(flight.steps) for flight in flights)

    async def restore_whole(self, flights: Sequence[OpenFlight], events: Iterable[Event], until_ms: int) -> list[str]:
        """`restore`, with the content of their events where Redis has forgotten it."""
        await self.keep_content(events)
        return await self.restore(flights, until_ms=until_ms)

    def restoring(self, flights: Sequence[OpenFlight], keep_ms: int, until_ms: int = 0) -> Step:
        """What `restore` runs; its answer is kept for `keep_ms`, should it be sent again."""
        given = (f"{flight.notification}|{text_of(flight)}" for flight in flights)
        return Step("restore", (_token(), keep_ms, until_ms, *given))

    async def keep_content(self, events: Iterable[Event]) -> None:
        """Gives Redis what events say, where it has forgotten it: a claim has to know their type."""
        arguments: list[object] = []
        for event in events:
            arguments += [event.id, event.model_dump_json(), event.type, "1" if event.mandatory else "0"]
            arguments.append(self.keep_ms(event))
        if arguments:
            await self._scripts.run("content", *arguments)

    async def back_off(self, entry: str, event: UUID, *, error: str | None) -> bool:
        """Lets an event or chunk wait: for the next try when `error` is None, else longer each time; False when it was
        given up, or another has done that work."""
        base_ms, most = 1_000, 5
        answer = await self._scripts.run(
            "back_off",
            entry,
            event,
            base_ms,
            most,
            "0" if error is None else "1",
            json.dumps(error),
            self.longest_ms,
            _token(),
        )
        return bool(answer == "again")

    def working_by(self, scripts: Scripts) -> "Flights":
        """The same by other scripts, which work in another life of Redis."""
        return Flights(self._client, scripts, self._keys, self._inbox, self._breaker)

    def keep_ms(self, event: Event) -> int:
        """How long an event's content is kept after its fan-out: until its last step and a day. An inbox that lists it
        longer, because Postgres is away, says less."""
        return max((step.after_ms for step in event.steps), default=0) + _DAY_MS

    @property
    def longest_ms(self) -> int:
        """How long what concerns a whole event is remembered."""
        return max(7 * _DAY_MS, self._inbox.ttl_ms)

    def _listing(self) -> tuple[str, str, str]:
        return self._inbox.prefix, "1" if self._inbox.cached else "0", str(self._inbox.ttl_ms)


def _certainty(again: Again) -> str:
    """What route.lua is told of an event that goes on."""
    return "exact" if again.doubt_ms is None else f"doubt:{again.doubt_ms}"


def _progress_of(told_of: Sequence[str | None]) -> Progress:
    cursor, named, horizon, entry, size, before = told_of
    return Progress(cursor or "0", int(named or 0), horizon or "", int(size or 0) + int(before or 0), entry or "")


def _token() -> str:
    """What tells a call that is sent again from another one."""
    return uuid4().hex[:16]
