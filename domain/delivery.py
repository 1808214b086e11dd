"""What can become of a delivery: its statuses, the closed list of reasons, and the merge of what was learnt about it.

A delivery's *history* is a map from "attempt:STATUS" (or "attempt:STATUS:word", with the provider's own word) to a
`Fact`. Histories merge as a join-semilattice: a union in which two tellings of one key settle on the earlier. Therefore
facts may come in any order and any number of times. `merge` here, `tocsin_merge` in SQL and `join` in merge.lua answer
alike; tests/test_merge.py holds them to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final


class Channel(StrEnum):
    """The ways to reach a person."""

    IN_APP = "IN_APP"
    PUSH = "PUSH"
    SMS = "SMS"
    EMAIL = "EMAIL"


class Status(StrEnum):
    """Where a delivery stands; each with its one sentence of meaning in `MEANING`."""

    SCHEDULED = "SCHEDULED"
    QUEUED = "QUEUED"
    RETRYING = "RETRYING"
    SENDING = "SENDING"
    UNCERTAIN = "UNCERTAIN"
    SUPPRESSED = "SUPPRESSED"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"
    DEAD = "DEAD"
    SENT = "SENT"
    DELIVERED = "DELIVERED"
    BOUNCED = "BOUNCED"


MEANING: Final[Mapping[Status, str]] = {
    Status.SCHEDULED: "Its time has not come.",
    Status.QUEUED: "It may start.",
    Status.RETRYING: "It waits for its next attempt.",
    Status.SENDING: "It is claimed and the provider call is under way.",
    Status.UNCERTAIN: "It was handed over and the outcome is unknown.",
    Status.SUPPRESSED: "It is not to be sent, for the reason given.",
    Status.CANCELLED: "It was read or withdrawn before it was sent.",
    Status.FAILED: "It will not be tried again.",
    Status.DEAD: "Its attempts are used up.",
    Status.SENT: "The provider accepted it.",
    Status.DELIVERED: "Its arrival was confirmed; in-app: it is in the inbox.",
    Status.BOUNCED: "It came back.",
}

RANK: Final[Mapping[Status, int]] = {status: rank for rank, status in enumerate(MEANING)}
"""The order in which the statuses of one attempt supersede each other."""

WAITING: Final = frozenset({Status.SCHEDULED, Status.QUEUED, Status.RETRYING})

OPEN: Final = WAITING | {Status.SENDING}


class Reason(StrEnum):
    """Why a delivery ended, waits or was not made: used by the row, the log line and the metric label alike."""

    NOT_CONFIGURED = "not_configured"
    NO_ADDRESS = "no_address"
    OPTED_OUT = "opted_out"
    INACTIVE = "inactive"
    UNKNOWN_USER = "unknown_user"
    INVALID_ADDRESS = "invalid_address"
    REJECTED = "rejected"
    RATE_LIMITED = "rate_limited"
    PROVIDER_DOWN = "provider_down"
    TIMEOUT = "timeout"
    CONNECTION_LOST = "connection_lost"
    LEASE_LOST = "lease_lost"
    REDIS_LOST = "redis_lost"
    NOT_FOUND = "not_found"
    SETTLED = "settled"
    REPLAYED = "replayed"
    REPLACED = "replaced"
    MISSING = "missing"
    UNDELIVERED = "undelivered"
    READ = "read"
    CANCELLED = "cancelled"
    INTERNAL = "internal"


Fact = dict[str, Any]
"""What is known of one status of one attempt: `at` (ms) and any of reason, provider, provider_id, word (the provider's
own), code, message, due (ms), price, segments, attempts (how many are allowed), address, cid; for what a person or a
look-up settled, by (who), note (what they said), method and confidence (T7), difference (ms). Times and counts are
integers, the others text; what is not known is left out."""

History = dict[str, Fact]


def key(attempt: int, status: Status, word: str | None = None) -> str:
    """The place of a fact in a history."""
    return f"{attempt}:{status}:{word}" if word else f"{attempt}:{status}"


@lru_cache(maxsize=4_096)
def parse_key(place: str) -> tuple[int, Status, str | None]:
    """The attempt, status and provider's word that `key` was made of."""
    attempt, status, *word = place.split(":", 2)
    return int(attempt), Status(status), word[0] if word else None


def merge(histories: Iterable[History]) -> History:
    """The union of `histories`; of two tellings of one key the earlier stays, and of two as early the lesser text."""
    merged: History = {}
    for history in histories:
        for place, fact in history.items():
            known = merged.get(place)
            if known is None or _order(fact) < _order(known):
                merged[place] = fact
    return merged


def shown_attempt(history: History) -> tuple[int, Status]:
    """The attempt that a delivery shows and where that attempt stands.

    Of all attempts it is the greatest by (evidence, number), where delivered counts 3, sent 2, open or uncertain 1 and
    the rest 0: an uncertain first attempt whose receipt comes late beats a second one that failed. An attempt that
    waits though there is a later one has ended, only nobody can tell how any more: it counts 0.
    """
    standing = standings(history)
    last = max(standing)

    def weight(attempt: int) -> tuple[int, int]:
        status = standing[attempt]
        return 0 if attempt < last and status in WAITING else evidence(status), attempt

    number = max(standing, key=weight)
    return number, standing[number]


def standings(history: History) -> dict[int, Status]:
    """Where each attempt stands."""
    standing: dict[int, Status] = {}
    for place in history:
        attempt, status, _ = parse_key(place)
        if attempt not in standing or RANK[status] > RANK[standing[attempt]]:
            standing[attempt] = status
    return standing


def evidence(status: Status) -> int:
    """How strongly a status speaks for the message having gone out."""
    if status is Status.DELIVERED:
        return 3
    if status is Status.SENT:
        return 2
    return 1 if status in OPEN or status is Status.UNCERTAIN else 0


def _order(fact: Fact) -> tuple[int, str]:
    return fact["at"], canonical(fact)


def canonical(fact: Fact) -> str:
    """The text that Postgres makes of `fact` as jsonb: short keys first. Code points sort as the bytes of UTF-8 do."""
    ordered = {name: fact[name] for name in sorted(fact, key=lambda name: (len(name), name))}
    return json.dumps(ordered, ensure_ascii=False)
