"""What a lane has claimed and not begun for lack of a slot, each with when it was claimed."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tocsin.channels.contract import Message
from tocsin.storage.flight_parts import Claim

_PATIENCE_S: Final = 0.25
"""How long what was claimed may wait for a slot: by then slow sends hold them all, and others may have it."""
_LOOK_AGAIN_S: Final = 0.05
"""When to look again at what has waited too long, though a slot is free: it is just about to begin."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A claim and what it has to say. `claimed_s` is when it was claimed, on the monotonic clock."""

    claim: Claim
    message: Message
    claimed_s: float


class Ready:
    """In the order in which they are to begin. Tells `let_go` what has waited too long, which is then no longer here;
    but nothing of it while `has_slot`. Used from one event loop."""

    def __init__(self, has_slot: Callable[[], bool], let_go: Callable[[Sequence[Claim]], None]) -> None:
        self._has_slot = has_slot
        self._let_go = let_go
        self._waiting: deque[Prepared] = deque()
        self._looking: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, prepared: Sequence[Prepared]) -> None:
        """They wait from when they were claimed."""
        self._waiting.extend(prepared)
        if self._waiting and self._looking is None:
            self._look_in(self._waiting[0].claimed_s + _PATIENCE_S - time.monotonic())

    def take(self, most: int) -> list[Prepared]:
        """The next ones, all of one claim."""
        taken: list[Prepared] = []
        waiting = self._waiting
        while waiting and len(taken) < most and waiting[0].claim.token == (taken or waiting)[0].claim.token:
            taken.append(waiting.popleft())
        return taken

    def clear(self) -> list[Claim]:
        """All of them, which are then no longer here."""
        claims = [prepared.claim for prepared in self._waiting]
        self._waiting.clear()
        return claims

    def _look_in(self, seconds: float) -> None:
        self._looking = asyncio.get_running_loop().call_later(max(_LOOK_AGAIN_S, seconds), self._look)

    def _look(self) -> None:
        self._looking = None
        if self._has_slot():
            late = []
        else:
            claimed_before_s = time.monotonic() - _PATIENCE_S
            late = [prepared for prepared in self._waiting if prepared.claimed_s <= claimed_before_s]
            self._waiting = deque(prepared for prepared in self._waiting if prepared.claimed_s > claimed_before_s)
        if self._waiting:
            self._look_in(min(prepared.claimed_s for prepared in self._waiting) + _PATIENCE_S - time.monotonic())
        if late:
            self._let_go([prepared.claim for prepared in late])
