"""What a person may say became of a delivery whose outcome nobody knows, and which attempts that speaks of."""

from typing import Final

from tocsin.domain.delivery import OPEN, History, Reason, Status, key, shown_attempt, standings
from tocsin.domain.errors import Conflict

ANSWERS: Final = (Status.SENT, Status.DELIVERED, Status.FAILED)
"""What a person can know."""


def settlement(history: History, answer: Status) -> list[tuple[int, Status]]:
    """The attempts that `answer` speaks of, each with its status; none where it says what was said before.

    That it went out is told of the latest attempt in doubt, that it did not of all of them. A message that the provider
    had accepted and that did not arrive came back: like a negative receipt it is BOUNCED. A person who said FAILED may
    still learn better. Raises Conflict where nothing is in doubt."""
    number, status = shown_attempt(history)
    if _said(history, number, status, answer):
        return []
    if status is Status.SENT and answer is not Status.SENT:
        return [(number, Status.BOUNCED if answer is Status.FAILED else answer)]
    doubted = _in_doubt(history, answer)
    if not doubted or not (status in OPEN or status is Status.UNCERTAIN or number in doubted):
        raise Conflict(f"it is {status}; only what is UNCERTAIN, or SENT and not confirmed, can be settled")
    return [(each, answer) for each in doubted] if answer is Status.FAILED else [(doubted[-1], answer)]


def _in_doubt(history: History, answer: Status) -> list[int]:
    standing = standings(history)
    return sorted(
        number
        for number, status in standing.items()
        if status is Status.UNCERTAIN
        or (answer is not Status.FAILED and status is Status.FAILED and _by_a_person(history, number, status))
    )


def _said(history: History, number: int, status: Status, answer: Status) -> bool:
    same = status is answer or (status is Status.BOUNCED and answer is Status.FAILED)
    return same and _by_a_person(history, number, status)


def _by_a_person(history: History, number: int, status: Status) -> bool:
    return bool(history.get(key(number, status), {}).get("reason") == Reason.SETTLED)
