"""What a delivery's row shows beside its history: every column is a function of the history alone.

`shown` here and `tocsin_shown` in SQL answer alike; tests/test_merge.py holds them to it. Facts are laid over each
other in the order of attempt, rank of status, time and key, so that the question "which one?" has one answer.
"""

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Final, NamedTuple

from tocsin.domain.delivery import RANK, Fact, History, Status, parse_key, shown_attempt

MOST_ERROR_CHARACTERS: Final = 512

_TRIED: Final = frozenset({Status.SENDING, Status.UNCERTAIN, Status.SENT, Status.DELIVERED, Status.BOUNCED})
"""What only an attempt that a provider was called for can be."""

_ACCEPTED: Final = frozenset({Status.SENT, Status.DELIVERED})


class ShownDelivery(NamedTuple):
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
    told = [_told(place, fact) for place, fact in history.items()]
    told.sort(key=_ORDER)
    current = [each for each in told if each.attempt == number]
    laid, whole = _overlaid(current), _overlaid(told)
    standing = _overlaid([each for each in current if each.status is status])
    code, message = (None, None) if status in _ACCEPTED else _failure(told, number)
    began_ms = [each.at_ms for each in told if each.status is Status.SENDING]
    attempts = [each.fact["attempts"] for each in told if "attempts" in each.fact]
    return ShownDelivery(
        status=status,
        reason=standing.get("reason"),
        attempt_count=len({each.attempt for each in told if each.status in _TRIED}),
        max_attempts=max(attempts) if attempts else None,
        address=laid.get("address", whole.get("address")),
        queued_ms=_first_ms(told, _QUEUED),
        last_attempted_ms=max(began_ms) if began_ms else _first_ms(told, _TRIED),
        next_attempt_ms=standing.get("due") if status is Status.RETRYING else None,
        sent_ms=_first_ms(current, _SENT),
        delivered_ms=_first_ms(current, _DELIVERED) if status is Status.DELIVERED else None,
        provider=laid.get("provider"),
        provider_id=laid.get("provider_id"),
        provider_status=laid.get("word"),
        error_code=code,
        error_message=message[:MOST_ERROR_CHARACTERS] if message else message,
        price=laid.get("price"),
        segments=laid.get("segments"),
    )


_ORDER: Final = itemgetter(0, 1, 2, 3)
_QUEUED: Final = frozenset({Status.QUEUED})
_DELIVERED: Final = frozenset({Status.DELIVERED})
_SENT: Final = frozenset(status for status, rank in RANK.items() if rank >= RANK[Status.SENT])
"""What is sent, delivered or came back."""


def _told(place: str, fact: Fact) -> _Told:
    attempt, status, word = parse_key(place)
    return _Told(attempt, RANK[status], fact["at"], place, status, {**fact, "word": word} if word else fact)


def _overlaid(told: Sequence[_Told]) -> Fact:
    if len(told) == 1:
        return told[0].fact
    laid: Fact = {}
    for each in told:
        laid.update(each.fact)
    return laid


def _failure(told: Iterable[_Told], number: int) -> tuple[str | None, str | None]:
    """The code and the message of the last failure up to attempt `number`."""
    code, message = None, None
    for each in told:
        if each.attempt <= number and ("code" in each.fact or "message" in each.fact):
            code, message = each.fact.get("code"), each.fact.get("message")
    return code, message


def _first_ms(told: Iterable[_Told], wanted: frozenset[Status]) -> int | None:
    times = [each.at_ms for each in told if each.status in wanted]
    return min(times) if times else None
