"""What a delivery's row shows beside its history: every column is a function of the history alone.

`shown` here and `tocsin_shown` in SQL answer alike; tests/test_merge.py holds them to it. Facts are laid over each
other in the order of attempt, rank of status, time and key, so that the question "which one?" has one answer.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from tocsin.domain.delivery import RANK, Fact, History, Status, parse_key, shown_attempt

MOST_ERROR_CHARACTERS: Final = 512

_TRIED: Final = frozenset({Status.SENDING, Status.UNCERTAIN, Status.SENT, Status.DELIVERED, Status.BOUNCED})
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
    """The address used by the shown attempt, else by another; None where no fact tells and the plan's counts."""
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


class _Told(NamedTuple):
    """A fact and its place; they sort in the order in which they are laid over each other."""

    attempt: int
    rank: int
    at_ms: int
    place: str
    status: Status
    fact: Fact


def shown(history: History) -> ShownDelivery:
    """What a row with this history, which is not empty, shows."""
    number, status = shown_attempt(history)
    told = sorted((_told(place, fact) for place, fact in history.items()), key=lambda each: each[:4])
    current = _overlaid(each.fact for each in told if each.attempt == number)
    standing = _overlaid(each.fact for each in told if each.attempt == number and each.status is status)
    code, message = (None, None) if status in _ACCEPTED else _failure(told, number)
    began_ms = max((each.at_ms for each in told if each.status is Status.SENDING), default=None)
    sent_ms = min((each.at_ms for each in told if each.attempt == number and each.rank >= _SENT_RANK), default=None)
    return ShownDelivery(
        status=status,
        reason=standing.get("reason"),
        attempt_count=len({each.attempt for each in told if each.status in _TRIED}),
        max_attempts=max((each.fact["attempts"] for each in told if "attempts" in each.fact), default=None),
        address=current.get("address", _overlaid(each.fact for each in told).get("address")),
        queued_ms=_first_ms(told, {Status.QUEUED}),
        last_attempted_ms=began_ms if began_ms is not None else _first_ms(told, _TRIED),
        next_attempt_ms=standing.get("due") if status is Status.RETRYING else None,
        sent_ms=sent_ms,
        delivered_ms=_first_ms((each for each in told if each.attempt == number), {status} & {Status.DELIVERED}),
        provider=current.get("provider"),
        provider_id=current.get("provider_id"),
        provider_status=current.get("word"),
        error_code=code,
        error_message=message[:MOST_ERROR_CHARACTERS] if message else message,
        price=current.get("price"),
        segments=current.get("segments"),
    )


_SENT_RANK: Final = RANK[Status.SENT]
"""What is sent, delivered or came back ranks from here on."""


def _told(place: str, fact: Fact) -> _Told:
    attempt, status, word = parse_key(place)
    return _Told(attempt, RANK[status], fact["at"], place, status, {**fact, "word": word} if word else fact)


def _overlaid(facts: Iterable[Fact]) -> Fact:
    laid: Fact = {}
    for fact in facts:
        laid.update(fact)
    return laid


def _failure(told: Iterable[_Told], number: int) -> tuple[str | None, str | None]:
    """The code and the message of the last failure up to attempt `number`."""
    code, message = None, None
    for each in told:
        if each.attempt <= number and ("code" in each.fact or "message" in each.fact):
            code, message = each.fact.get("code"), each.fact.get("message")
    return code, message


def _first_ms(told: Iterable[_Told], wanted: Iterable[Status]) -> int | None:
    return min((each.at_ms for each in told if each.status in wanted), default=None)
