"""What a delivery's row shows beside its history: every column is a function of the history alone.

`shown` here and `tocsin_shown` in SQL answer alike; tests/test_merge.py holds them to it. Facts are looked at in the
order of attempt, rank of status, time and key, so that every question "which one?" has one answer.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from tocsin.domain.delivery import RANK, Fact, History, Status, parse_key, shown_attempt

MOST_ERROR_CHARACTERS: Final = 512

TRIED: Final = frozenset({Status.SENDING, Status.UNCERTAIN, Status.SENT, Status.DELIVERED, Status.BOUNCED})
"""What only an attempt that a provider was called for can be."""

_ACCEPTED: Final = frozenset({Status.SENT, Status.DELIVERED})


@dataclass(frozen=True, slots=True)
class ShownDelivery:
    """The columns made of a history; times in milliseconds since 1970."""

    status: Status
    reason: str | None
    attempt_count: int
    """How many attempts called the provider."""
    max_attempts: int | None
    address: str | None
    """The address used; None where the history does not tell and the plan's counts."""
    queued_ms: int | None
    last_attempted_ms: int | None
    next_attempt_ms: int | None
    sent_ms: int | None
    """When the provider said yes; a receipt that comes first says so too. A delivery that came back was sent."""
    delivered_ms: int | None
    provider: str | None
    provider_id: str | None
    provider_status: str | None
    error_code: str | None
    error_message: str | None
    price: str | None
    segments: int | None


@dataclass(frozen=True, slots=True)
class _Entry:
    attempt: int
    status: Status
    word: str | None
    fact: Fact


def shown(history: History) -> ShownDelivery:
    """What a row with this history, which is not empty, shows."""
    number, status = shown_attempt(history)
    entries = _in_order(history)
    current = [entry for entry in entries if entry.attempt == number]
    standing = [entry for entry in current if entry.status is status]
    failure = None if status in _ACCEPTED else _failure(entry for entry in entries if entry.attempt <= number)
    began = _began(entries)
    return ShownDelivery(
        status=status,
        reason=_last(standing, "reason"),
        attempt_count=len(began),
        max_attempts=max((entry.fact["attempts"] for entry in entries if "attempts" in entry.fact), default=None),
        address=_last(current, "address"),
        queued_ms=_first_ms(entries, lambda entry: entry.status is Status.QUEUED),
        last_attempted_ms=max(began.values(), default=None),
        next_attempt_ms=_last(standing, "due") if status is Status.RETRYING else None,
        sent_ms=_first_ms(current, lambda entry: entry.status in _ACCEPTED or entry.status is Status.BOUNCED),
        delivered_ms=_first_ms(standing, lambda entry: entry.status is Status.DELIVERED),
        provider=_last(current, "provider"),
        provider_id=_last(current, "provider_id"),
        provider_status=_last_word(current),
        error_code=failure.get("code") if failure else None,
        error_message=_short(failure.get("message")) if failure else None,
        price=_last(current, "price"),
        segments=_last(current, "segments"),
    )


def _in_order(history: History) -> list[_Entry]:
    keyed = [(parse_key(place), place, fact) for place, fact in history.items()]
    keyed.sort(key=lambda item: (item[0][0], RANK[item[0][1]], item[2]["at"], item[1]))
    return [_Entry(attempt, status, word, fact) for (attempt, status, word), _, fact in keyed]


def _last(entries: Iterable[_Entry], field: str) -> Any:
    found = None
    for entry in entries:
        found = entry.fact.get(field, found)
    return found


def _last_word(entries: Iterable[_Entry]) -> str | None:
    found: str | None = None
    for entry in entries:
        found = entry.word or entry.fact.get("word", found)
    return found


def _failure(entries: Iterable[_Entry]) -> Fact | None:
    found = None
    for entry in entries:
        if "code" in entry.fact or "message" in entry.fact:
            found = entry.fact
    return found


def _began(entries: Iterable[_Entry]) -> dict[int, int]:
    """When each attempt that called the provider began."""
    began: dict[int, int] = {}
    for entry in entries:
        if entry.status in TRIED:
            began[entry.attempt] = min(entry.fact["at"], began.get(entry.attempt, entry.fact["at"]))
    return began


def _first_ms(entries: Iterable[_Entry], wanted: Callable[[_Entry], bool]) -> int | None:
    return min((entry.fact["at"] for entry in entries if wanted(entry)), default=None)


def _short(text: str | None) -> str | None:
    return text[:MOST_ERROR_CHARACTERS] if text else text
