"""What a process says of itself after Redis was lost: the facts of its own calls, as the scripts told them.

The times are this process's reckoning of Redis's clock; of two tellings of one fact the earlier stays.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from tocsin.domain.delivery import Fact, Status
from tocsin.storage.life import Told


def began(calls: Sequence[tuple[UUID, int, str, int]], detail: Fact, at_ms: int) -> Told:
    """That the provider calls of (notification, step, channel, attempt) began."""
    return _moved([_move(*call, Status.SENDING, at_ms, detail) for call in calls])


def ended(call: tuple[UUID, int, str, int], status: Status, detail: Fact, at_ms: int) -> Told:
    """How an attempt ended."""
    return _moved([_move(*call, status, at_ms, detail)])


def lost(channel: str, claimed: Sequence[str], at_ms: int) -> list[Told]:
    """Of what claim.lua or end_leases.lua answered: that nobody knows how the attempt before that one ended."""
    facts: list[Told] = []
    for note, step, attempt, _, _, reason in (text.split("|") for text in claimed):
        if reason:
            call, before = (UUID(note), int(step), channel), int(attempt) - 1
            facts.append(ended((*call, before), Status.UNCERTAIN, {"reason": reason}, at_ms))
            facts.append(waits((*call, int(attempt)), reason, at_ms, at_ms))
    return facts


def waits(call: tuple[UUID, int, str, int], reason: str, until_ms: int, at_ms: int) -> Told:
    """That this attempt waits for its time."""
    return _moved([_move(*call, Status.RETRYING, at_ms, {"reason": reason, "due": until_ms})])


def read(user: str, times: Sequence[tuple[UUID, int]]) -> list[Told]:
    """That a person read notifications, each at its time in ms."""
    return [{"f": "read", "at": at_ms, "n": [[str(note), user]]} for note, at_ms in times]


def _moved(moves: list[list[Any]]) -> Told:
    return {"f": "moved", "d": moves}


def _move(note: UUID, step: int, channel: str, attempt: int, status: Status, at_ms: int, detail: Fact) -> list[Any]:
    return [str(note), step, channel, attempt, status, None, at_ms, detail]
