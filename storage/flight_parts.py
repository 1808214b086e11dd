"""What the scripts of what is in motion (flights.py) are given, and what they answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii
from typing import Final, NamedTuple
from uuid import UUID

from tocsin.domain.breaker import Health
from tocsin.domain.delivery import Channel, Fact, Reason, Status
from tocsin.domain.event import Contact, Event, Recipient
from tocsin.domain.plan import Plan
from tocsin.storage.found import Found, contacts_in, people_of

# As merge.lua has them.
_LETTERS: Final = {Status.SCHEDULED: "W", Status.QUEUED: "Q", Status.RETRYING: "R", Status.SENDING: "G"}
_WAITING: Final = frozenset("WQR")


@dataclass(frozen=True, slots=True)
class InboxSettings:
    """How in-app entries are listed in Redis; `cached` off means that they are shown when Postgres has them."""

    prefix: str
    cached: bool
    ttl_ms: int


@dataclass(frozen=True, slots=True)
class Page:
    """What fan_out's script did. `state`: gone, moved, pause, more or last; `chunk` is None when none was made;
    `processes`: how many run actors."""

    state: str
    cursor: str
    chunk: int | None
    processes: int = 0

    @classmethod
    def of(cls, answer: Sequence[str]) -> "Page":
        """What the script answered."""
        state, cursor, chunk, processes = answer
        made = state in {"more", "last"} and int(chunk) >= 0
        return cls(state, cursor, int(chunk) if made else None, int(processes))


IN_AUDIENCE: Final = "@"
"""How a cursor begins that is behind the recipients who were named; the last user id follows."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an event's fan-out is: its cursor (fan_out.lua), how many recipients were named, up to which user id
    people of its audience may have been made chunks of before, and how many people were found until now. `entry` is
    another one whenever the event is entered anew, after a loss or for a replay."""

    cursor: str
    named: int
    horizon: str
    matched: int
    entry: str


@dataclass(frozen=True, slots=True)
class Walked:
    """Up to 100 people of an audience, as found.py has them, and how far the walk is with them. `entry` is that of the
    event as they were found; `last`: nobody comes after them; `beyond`: all of them lie beyond the horizon."""

    entry: str
    people: Sequence[str]
    cursor: str
    last: bool
    beyond: bool

    def arguments(self) -> tuple[str, ...]:
        """As fan_out.lua takes them."""
        flags = ("1" if flag else "0" for flag in (self.last, self.beyond))
        return (self.entry, self.cursor, *flags, *self.people)


@dataclass(frozen=True, slots=True)
class Walk:
    """That an event has an audience to be walked through: how many recipients were named beside it, and its horizon."""

    named: int
    horizon: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """People of an event to be routed together, and the entry of the event that they are of. `contacts` are those of
    people who were named that Redis has, by user."""

    event: Event
    entry: str
    people: Sequence[Recipient | Found]
    contacts: Mapping[str, Contact]

    @classmethod
    def of(cls, answer: Sequence[str]) -> "Chunk | None":
        """What chunk.lua answered; None for a chunk that was routed."""
        content, entry, people, contacts = answer
        if not content or people == "[]":
            return None
        return cls(Event.model_validate_json(content), entry, people_of(people), contacts_in(contacts))


class Routed(NamedTuple):
    """What is to be called after a chunk was routed: whether the fan-out of its event has more to do, and the channels
    with something ready."""

    resume: bool
    ready: Sequence[Channel]

    @classmethod
    def of(cls, answer: Sequence[str]) -> "Routed | None":
        """What route.lua answered; None when another has routed the chunk, or it is of another entry of its event."""
        return cls(answer[0] == "1", [Channel(name) for name in answer[1:]]) if answer else None


class Routing(NamedTuple):
    """One notification to be made. `addresses` are those of its plan's steps, but for the inbox, whose address is the
    user's id; None where there is none."""

    notification: str
    user: str
    plan: Plan
    addresses: Sequence[str | None]

    @property
    def id(self) -> UUID:
        """The notification's id."""
        return UUID(self.notification)


@dataclass(frozen=True, slots=True)
class Claim:
    """One delivery that this process may start before its lease ends."""

    notification: UUID
    step: int
    attempt: int
    user: str
    event: UUID
    channel: Channel
    token: str
    provider: str = ""
    """Who is to carry it; empty where nobody's health is asked for."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended, and after what delay another follows (None: never)."""

    claim: Claim
    status: Status
    detail: Fact
    retry_in_ms: int | None = None
    retry_reason: Reason | None = None
    health: Health = Health.UNSAID
    asked_ms: int = 0
    """For how long the provider asked to be left alone."""


@dataclass(frozen=True, slots=True)
class Again:
    """An event that was on its way when Redis was lost: how many of its notifications were made before, and how its
    audience goes on. `doubt_ms` is None where it is known that what Postgres does not know of was not sent; else what
    could have started within so long of being routed may have been."""

    routed: int
    doubt_ms: int | None
    walk: Walk | None = None


@dataclass(frozen=True, slots=True)
class OpenStep:
    """A delivery that is not final, as Postgres has it. `status` is SCHEDULED, QUEUED, RETRYING or SENDING; `time_ms`
    when it starts, or for SENDING when its lease ends."""

    number: int
    channel: Channel
    status: Status
    attempt: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class OpenFlight:
    """A notification with the deliveries of it that are not final; `read_ms` 0 while it is unread."""

    notification: UUID
    user: str
    event: UUID
    critical: bool
    read_ms: int
    steps: Sequence[OpenStep]


@dataclass(frozen=True, slots=True)
class SeenStep:
    """A step of a flight. `waits`: nobody holds it, and its provider call is not under way."""

    number: int
    channel: str
    scheduled: bool
    waits: bool
    time_ms: int


@dataclass(frozen=True, slots=True)
class SeenFlight:
    """A flight as it was when it was looked at; `text` is its exact form."""

    notification: str
    user: str
    event: str
    text: str
    steps: tuple[SeenStep, ...]


@dataclass(frozen=True, slots=True)
class ReadAnswer:
    """`state`: changed, known, foreign or unseen (Redis knows nothing of it)."""

    state: str
    read_ms: int


def arguments_of(routings: Sequence[Routing]) -> list[object]:
    """What route.lua is given of notifications: the plans, each once with who has it."""
    plans = {id(routing.plan): routing.plan for routing in routings}
    people: dict[int, list[str]] = {place: [] for place in plans}
    for notification, user, plan, addresses in routings:
        texts = [",null" if each is None else f",{encode_basestring_ascii(each)}" for each in addresses]
        people[id(plan)].append(f"{notification}{user}\n{''.join(texts)}\n")
    arguments: list[object] = [len(plans)]
    for place, plan in plans.items():
        arguments.append(len(plan))
        for step in plan:
            arguments += (step.step, step.channel, step.after_ms, step.reason or "")
        arguments.append("".join(people[place]))
    return arguments


def text_of(flight: OpenFlight) -> str:
    """A flight as lib.lua writes it."""
    steps = ";".join(
        f"{step.number},{step.channel},{_LETTERS[step.status]},{step.attempt},{step.time_ms}," for step in flight.steps
    )
    return f"{flight.user}|{flight.event}|{'1' if flight.critical else '0'}|{flight.read_ms}|{steps}"


def seen_flight(notification: str, text: str) -> SeenFlight:
    """A flight as `text_of` and lib.lua write it."""
    user, event, _, _, rest = text.split("|", 4)
    steps = (step.split(",") for step in rest.split(";") if step)
    return SeenFlight(
        notification,
        user,
        event,
        text,
        tuple(SeenStep(int(step[0]), step[1], step[2] == "W", step[2] in _WAITING, int(step[4])) for step in steps),
    )


def text_of_walk(walk: Walk | None) -> str:
    """A walk as accept.lua takes it."""
    return f"{walk.named}|{walk.horizon}" if walk else ""
