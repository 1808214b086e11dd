"""What is in motion: every change of an event, a notification or a delivery is one script (docs/adr/0001, 0002)."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID, uuid4

from tocsin.domain.breaker import NEVER, BreakerRules
from tocsin.domain.delivery import Channel, Fact, Reason
from tocsin.domain.event import Event, Recipient
from tocsin.domain.plan import Priority
from tocsin.domain.rate import Rate
from tocsin.storage import testimony
from tocsin.storage.breakers import name_of, say_changes
from tocsin.storage.flight_parts import (
    Again,
    Claim,
    Ending,
    InboxSettings,
    OpenFlight,
    Page,
    Progress,
    ReadAnswer,
    Routing,
    Walk,
    Walked,
    arguments_of,
    text_of,
    text_of_walk,
)
from tocsin.storage.found import Found, people_of
from tocsin.storage.keys import Keys
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
        anew = f"{again.routed}|{'exact' if again.exact else 'doubt'}" if again else ""
        given = (event.id, content, event.type, mandatory, _GUARD_MS, told_later, whole, anew, text_of_walk(walk))
        return Step("accept", (*given, *people))

    async def event(self, event: UUID) -> Event | None:
        """The event's content, while something of it is in motion or cached."""
        with told():
            content = await self._client.hget(self._keys.event(event), "content")
        return Event.model_validate_json(content) if content else None

    async def progress(self, event: UUID) -> Progress:
        """How far an event's fan-out is."""
        with told():
            cursor, named, horizon = await self._client.hmget(self._keys.event(event), "cursor", "named", "horizon")
        return Progress(cursor or "0", int(named or 0), horizon or "")

    async def named(self, event: UUID) -> list[str]:
        """The ids of the recipients who were named, as far as they were entered in this life of Redis."""
        with told():
            people = await self._client.lrange(self._keys.recipients(event), 0, -1)
        return [json.loads(person)["id"] for person in people]

    async def take_page(self, event: Event, cursor: str, walked: Walked | None = None) -> Page:
        """Makes the named recipients from `cursor` on a chunk, or the people of the audience that come next."""
        given: list[object] = []
        if walked:
            given = [walked.cursor, "1" if walked.last else "0", "1" if walked.beyond else "0", *walked.people]
        state, reached, chunk = await self._scripts.run(
            "fan_out", event.id, cursor, MOST_ITEMS, _GUARD_MS, _MOST_OPEN_CHUNKS, self.keep_ms(event), *given
        )
        return Page(state, reached, int(chunk) if state in {"more", "last"} and int(chunk) >= 0 else None)

    async def chunk(self, event: UUID, number: int) -> list[Recipient | Found]:
        """The people of a chunk; none when it was routed."""
        with told():
            people = await self._client.lrange(self._keys.chunk(event, number), 0, -1)
        return people_of(people)

    async def route(self, event: Event, number: int, routings: Sequence[Routing]) -> tuple[bool, list[Channel]] | None:
        """Makes a chunk's notifications. Answers whether fan_out has more to do and the channels with something ready;
        None when another has routed the chunk."""
        critical = "1" if event.priority is Priority.CRITICAL else "0"
        answer = await self._scripts.run(
            "route",
            event.id,
            number,
            json.dumps(event.cid),
            critical,
            *self._listing(),
            self.keep_ms(event),
            *arguments_of(routings),
        )
        return (answer[0] == "1", [Channel(name) for name in answer[1:]]) if answer else None

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
            looked_at += [channel, self._breaker_of(channel, provider), limit]
        answer = await self._scripts.run("escalate", MOST_ITEMS, _GUARD_MS, *self._listing(), *looked_at)
        more, reached, *calls = answer
        self._scripts.life.follow(int(reached))
        return calls, more == "1"

    async def claim(
        self,
        channel: Channel,
        token: str,
        most: int,
        *,
        lease_ms: int,
        attempts: int,
        resend: bool,
        provider: str = "",
        rate: Rate | None = None,
    ) -> list[Claim]:
        """Claims up to `most` deliveries that may start now; fewer or none while `provider` rests or comes back, or by
        its `rate`."""
        answer = await self._scripts.run(
            "claim",
            channel,
            token,
            min(most, MOST_ITEMS),
            lease_ms,
            attempts,
            "1" if resend else "0",
            self._breaker_of(channel, provider),
            limit_of(channel, provider, rate),
        )
        life = self._scripts.life
        life.remember(*testimony.lost(channel, answer, life.now_ms()))
        return [_claim_of(text, channel, token, provider) for text in answer]

    async def begin(self, claims: Sequence[Claim], token: str, *, lease_ms: int, detail: Fact) -> list[bool]:
        """Says that the provider calls begin; False for what must not be sent any more."""
        arguments = [part for claim in claims for part in (claim.notification, claim.step, claim.attempt)]
        life = self._scripts.life
        with life.under_way():
            answer = await self._scripts.run_telling("begin", token, lease_ms, json.dumps(detail), *arguments)
            begun = [_call(claim) for claim, text in zip(claims, answer, strict=True) if text == "1"]
            life.remember(testimony.began(begun, detail, life.now_ms()))
        return [text == "1" for text in answer]

    async def record(self, endings: Sequence[Ending]) -> list[bool]:
        """Records how attempts ended, and what they say of their providers; True for what will be tried again."""
        rules = self._breaker
        arguments: list[object] = [rules.failures, rules.rest_ms, rules.cap_ms, rules.successes]
        for ending in endings:
            claim = ending.claim
            delay = "" if ending.retry_in_ms is None else ending.retry_in_ms
            arguments += [claim.token, claim.notification, claim.step, claim.channel, claim.attempt, ending.status]
            arguments += [json.dumps(ending.detail), delay, ending.retry_reason or Reason.INTERNAL]
            arguments += [self._breaker_of(claim.channel, claim.provider), ending.health, ending.asked_ms]
        answer = await self._scripts.run_telling("record", *arguments)
        say_changes(answer[len(endings) :])
        again = [text == "1" for text in answer[: len(endings)]]
        self._remember_endings(endings, again)
        return again

    async def release(
        self, claims: Sequence[Claim], token: str, *, delay_ms: int = 0, rate: Rate | None = None
    ) -> None:
        """Hands back claims that have not begun, and what they took of their provider's `rate`."""
        if claims:
            arguments = [part for claim in claims for part in (claim.notification, claim.step)]
            channel, provider = claims[0].channel, claims[0].provider
            given = (self._breaker_of(channel, provider), limit_of(channel, provider, rate))
            await self._scripts.run("release", token, delay_ms, *given, *arguments)

    async def read(self, user: str, notifications: Sequence[tuple[UUID, bool]]) -> list[ReadAnswer]:
        """Marks notifications read, each with whether it is known to be the user's; at most 100."""
        arguments = [part for identifier, owned in notifications for part in (identifier, "1" if owned else "0")]
        answer = await self._scripts.run_telling("read", READ_MARKER_MS, user, _token(), *arguments)
        answers = [ReadAnswer(state, int(read)) for state, read in (text.split("|") for text in answer)]
        noted = zip(notifications, answers, strict=True)
        changed = [(note, answer.read_ms) for (note, _), answer in noted if answer.state == "changed"]
        self._scripts.life.remember(*testimony.read(user, changed))
        return answers

    async def withdraw(
        self, event: UUID, fact: dict[str, Any] | None, notifications: Sequence[UUID] = (), *, keep_ms: int = 0
    ) -> int:
        """Marks an event withdrawn, for `keep_ms` at least; cancels what waits of `notifications` (at most 100)."""
        told_once = json.dumps(fact, separators=(",", ":")) if fact else ""
        keep_ms = max(keep_ms, self.longest_ms)
        cancelled = int(await self._scripts.run("withdraw", event, keep_ms, told_once, *notifications))
        if fact:
            self._scripts.life.remember(fact)
        return cancelled

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

    def _breaker_of(self, channel: Channel, provider: str | None) -> str:
        return name_of(channel, provider) if self._breaker.failures else ""

    def _remember_endings(self, endings: Sequence[Ending], again: Sequence[bool]) -> None:
        life = self._scripts.life
        now_ms = life.now_ms()
        for ending, tried_again in zip(endings, again, strict=True):
            call = _call(ending.claim)
            life.remember(testimony.ended(call, ending.status, ending.detail, now_ms))
            if tried_again and ending.retry_in_ms is not None:
                following = (*call[:3], call[3] + 1)
                reason = ending.retry_reason or Reason.INTERNAL
                life.remember(testimony.waits(following, reason, now_ms + ending.retry_in_ms, now_ms))

    def _listing(self) -> tuple[str, str, str]:
        return self._inbox.prefix, "1" if self._inbox.cached else "0", str(self._inbox.ttl_ms)


def _call(claim: Claim) -> tuple[UUID, int, str, int]:
    return claim.notification, claim.step, claim.channel, claim.attempt


def _token() -> str:
    """What tells a call that is sent again from another one."""
    return uuid4().hex[:16]


def _claim_of(text: str, channel: Channel, token: str, provider: str) -> Claim:
    notification, step, attempt, user, event, _ = text.split("|")
    return Claim(UUID(notification), int(step), int(attempt), user, UUID(event), channel, token, provider)
