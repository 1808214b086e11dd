"""What is there at the end of a run: Postgres's rows and Redis's keys, beside what was noted down."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg2
import redis

from tests.torture.ledger import Call, Ledger, now_ms
from tests.torture.world import FAR_MS

History = dict[str, dict[str, Any]]
RESENT = frozenset({"EMAIL", "PUSH"})
"""Channels whose unknown outcomes are sent again; SMS is held (settings.toml, `on_uncertain`)."""
OPEN = frozenset({"SCHEDULED", "QUEUED", "RETRYING", "SENDING"})
_KILLS = ("kill_actors", "skew_actors")
"""Faults that begin with kill -9 of a process that sends: a clock is changed by starting it again."""
_HTTP_KILLS = ("kill_http", "skew_http")
_TESTIFIED_MS = 8_000
_ASKED_AGAIN_MS = 60_000
"""For so long a caller repeats a request that was not answered."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One row."""

    id: str
    notification: str
    event: str
    user: str
    channel: str
    step: int
    status: str
    reason: str | None
    scheduled_ms: int
    provider_id: str | None
    history: History

    def at(self, attempt: int, status: str) -> int | None:
        """When an attempt came to a status, at the earliest."""
        prefix = f"{attempt}:{status}"
        times = [
            fact["at"] for place, fact in self.history.items() if place == prefix or place.startswith(f"{prefix}:")
        ]
        return min(times) if times else None

    @property
    def attempts(self) -> list[int]:
        return sorted({int(place.split(":")[0]) for place in self.history})

    @property
    def uncertain(self) -> set[int]:
        """The attempts whose outcome was unknown for a time or for good."""
        return {number for number in self.attempts if self.at(number, "UNCERTAIN") is not None}

    def is_far(self, at_ms: int) -> bool:
        """Whether its time is so far off that nobody waits for it."""
        return self.status == "SCHEDULED" and self.scheduled_ms > at_ms + FAR_MS / 2


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One row."""

    id: str
    status: str
    type: str
    steps: int
    mandatory: bool
    cancelled: bool
    accepted_ms: int
    has_key: bool
    """Whether the Idempotency-Key that it was posted under is its own; all of a run are posted under one."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key of Redis; `ttl_ms` -1 without one."""

    name: str
    type: str
    ttl_ms: int
    size: int


@dataclass(slots=True)
class Evidence:
    """Everything that is checked."""

    ledger: Ledger
    at_ms: int
    events: dict[str, StoredEvent] = field(default_factory=dict)
    notifications: dict[str, int] = field(default_factory=dict)
    """How many each event has."""
    deliveries: dict[str, Delivery] = field(default_factory=dict)
    bad_facts: list[str] = field(default_factory=list)
    losses: list[tuple[str, int]] = field(default_factory=list)
    """Why and when Redis was taken for lost and rebuilt."""
    keys: list[Key] = field(default_factory=list)
    facts: int = 0
    due: dict[str, float] = field(default_factory=dict)
    in_channels: dict[str, float] = field(default_factory=dict)
    """Members of every due:<channel>, with their times."""
    flights: dict[str, str] = field(default_factory=dict)
    rebuilt: dict[str, str] | None = None
    """The flights after Redis was emptied once more, when nothing moved; None where that was left out."""
    api_counts: dict[str, tuple[dict[str, int], dict[str, int]]] = field(default_factory=dict)
    """Of some events the deliveries by status, as the API says and as they were stored then."""
    postgres_away: list[tuple[int, int]] = field(default_factory=list)
    _calls: dict[str, list[Call]] = field(default_factory=lambda: defaultdict(list))

    def sent_ones(self) -> Iterator[Delivery]:
        """The deliveries that a provider carries."""
        return (delivery for delivery in self.deliveries.values() if delivery.channel != "IN_APP")

    def calls_of(self, delivery: str) -> list[Call]:
        """What was brought to providers of a delivery, in its order."""
        if not self._calls:
            for call in self.ledger.calls:
                self._calls[call.delivery].append(call)
        return self._calls.get(delivery, [])

    def emptied_after(self, at_ms: int) -> int | None:
        """When Redis was next emptied."""
        times = [
            fault.until_ms for fault in self.ledger.faults if fault.kind == "empty_redis" and fault.until_ms >= at_ms
        ]
        return min(times) if times else None

    def key_may_be_forgotten(self, at_ms: int) -> bool:
        """Whether nobody may have known of a key that was used a moment before: Redis was emptied, or the process that
        took the first request was killed while one of the stores, which did not know yet, was away."""
        lately = [fault for fault in self.ledger.faults if -_ASKED_AGAIN_MS <= fault.at_ms - at_ms <= 0]
        away = any(fault.target in ("redis", "postgres") for fault in lately)
        return any(fault.kind == "empty_redis" or (away and fault.kind in _HTTP_KILLS) for fault in lately)

    def only_in_redis(self, at_ms: int) -> bool:
        """Whether what was answered then was in Redis alone when Redis was emptied: Postgres was away, and had not
        long been back. Nothing but that Redis had it."""
        emptied_ms = self.emptied_after(at_ms)
        return emptied_ms is not None and any(
            since <= at_ms <= until + 5_000 and emptied_ms <= until + 20_000 for since, until in self.postgres_away
        )

    def told_to_the_dead(self, call: Call) -> bool:
        """Whether nobody can know of a call by its end: Redis alone was told of it, with Postgres away, then it was
        emptied; and a process that may have made the call was killed before it could say so."""
        emptied_ms = self.emptied_after(call.at_ms)
        return self.only_in_redis(call.at_ms) and any(
            fault.kind in _KILLS and emptied_ms is not None and call.at_ms <= fault.at_ms <= emptied_ms + _TESTIFIED_MS
            for fault in self.ledger.faults
        )

    def owned_up_to(self, delivery: str, attempt: int) -> bool:
        """Whether the journey says that what became of this attempt, or of one before it, was lost with Redis, and
        nobody could say more: then attempts are counted on from there."""
        row = self.deliveries.get(delivery)
        if row is None:
            return False
        doubts = [int(place.split(":")[0]) for place, fact in row.history.items() if fact.get("reason") == "redis_lost"]
        calls = [call for call in self.calls_of(delivery) if call.attempt == attempt]
        return any(number <= attempt for number in doubts) and any(map(self.told_to_the_dead, calls))


_GONE = -2
"""What PTTL says of a key that is there no more: it went while others were looked at."""

_DELIVERIES = """
select id::text, notification_id::text, event_id::text, user_id, channel, step, status, reason,
  coalesce((extract(epoch from scheduled_for) * 1000)::bigint, 0), provider_id, history from deliveries
"""
_EVENTS = """
select id::text, status, type, coalesce(jsonb_array_length(steps), 0), coalesce(mandatory, false),
  cancelled_at is not null, (extract(epoch from accepted_at) * 1000)::bigint,
  exists (select from idempotency where event_id = events.id)
from events where accepted_at is not null
"""

_LOSSES = (
    "select cause, (extract(epoch from lost_at) * 1000)::bigint from lives where lost_at is not null order by number"
)


def gather(ledger: Ledger, postgres_url: str, client: redis.Redis) -> Evidence:
    """Reads both stores. To be called when nothing moves."""
    evidence = Evidence(ledger, now_ms())
    evidence.postgres_away = [(fault.at_ms, fault.until_ms) for fault in ledger.faults if fault.target == "postgres"]
    _read_postgres(evidence, postgres_url)
    _read_redis(evidence, client)
    return evidence


def _read_postgres(evidence: Evidence, url: str) -> None:
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as query:
            query.execute(_EVENTS)
            evidence.events = {row[0]: StoredEvent(*row) for row in query}
            query.execute("select event_id::text, count(*) from notifications group by 1")
            evidence.notifications = dict(query.fetchall())
            query.execute("select entry_id || ': ' || why from bad_facts")
            evidence.bad_facts = [row[0] for row in query]
            query.execute(_LOSSES)
            evidence.losses = list(query)
        with connection, connection.cursor("deliveries") as query:
            query.itersize = 5_000
            query.execute(_DELIVERIES)
            evidence.deliveries = {row[0]: Delivery(*row) for row in query}
    finally:
        connection.close()


def statuses_of(url: str, event: str) -> dict[str, int]:
    """How many deliveries of an event are stored in each status."""
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as query:
            query.execute("select status, count(*) from deliveries where event_id = %s group by 1", (event,))
            return dict(query.fetchall())
    finally:
        connection.close()


def _read_redis(evidence: Evidence, client: redis.Redis) -> None:
    sizes = {"list": client.llen, "hash": client.hlen, "zset": client.zcard, "set": client.scard, "stream": client.xlen}
    for name in client.scan_iter(count=1000):
        kind = client.type(name)
        size, ttl_ms = sizes.get(kind, client.strlen)(name), client.pttl(name)
        if ttl_ms != _GONE:
            evidence.keys.append(Key(name, kind, ttl_ms, size))
        if name.startswith("tocsin:due:"):
            evidence.in_channels |= dict(client.zrange(name, 0, -1, withscores=True))
        elif name == "tocsin:due":
            evidence.due = dict(client.zrange(name, 0, -1, withscores=True))
    evidence.flights = flights(client)
    evidence.facts = client.xlen("tocsin:facts")


def flights(client: redis.Redis) -> dict[str, str]:
    """Every flight, by its notification, as the scripts write it."""
    found: dict[str, str] = {}
    for name in client.scan_iter("tocsin:flight:*", count=1000):
        start = name.removeprefix("tocsin:flight:")
        found |= {f"{start}-{field}": text for field, text in client.hgetall(name).items()}
    return found
