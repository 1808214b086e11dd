"""Which life of Redis this process works in, and what it told that may not be stored yet (docs/adr/0005).

A Redis that was emptied, or that came back as it was some time ago, looks like any other; the `epoch` that is kept
in it, and the number of its last fact, tell it from the one that this process knows. Scripts that start something
compare both.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

Told = Mapping[str, Any]
"""A fact as the journal has it."""

UNCHECKED: Final = ""
UNKNOWN: Final = "?"
"""The epoch of a process that does not know which life it works in: no script that starts something runs for it."""

_MOST_KEPT: Final = 100_000
_LONGEST_KEPT_MS: Final = 3_600_000
_CLOCK_MS: Final = 200
"""By how much a moment told by Redis and the same moment reckoned here may differ."""


class Life:
    """The life that the processes of one event loop's store work in, and their testimony. Made without an epoch it is
    never compared, which suits tools and tests."""

    def __init__(self, epoch: str = UNCHECKED) -> None:
        self.epoch = epoch
        self.reached = 0
        """The number of the last fact that is known of."""
        self._coming = ""
        self.complete = True
        """Whether nothing was let go that may not be stored: the bounds of what is kept were never reached."""
        self._doubts = asyncio.Event()
        self._loss = asyncio.Event()
        self._kept: deque[tuple[int, int, Told]] = deque()
        self._weight = 0
        self._resting = 0
        self._ahead_ms = 0
        self._under_way: set[object] = set()
        self._answers_since_s = -math.inf

    @property
    def coming(self) -> str:
        """The epoch of the life that is being made ready, while Redis is lost; otherwise empty."""
        return self._coming

    @coming.setter
    def coming(self, epoch: str) -> None:
        self._coming = epoch
        if epoch:
            self._loss.set()
        else:
            self._loss.clear()

    async def lost(self) -> None:
        """Waits until a life is being made ready."""
        await self._loss.wait()

    @property
    def is_lost(self) -> bool:
        """Whether Redis is not the one that this process knows, as far as it has noticed."""
        return self.epoch == UNKNOWN or bool(self.coming)

    @property
    def known_epoch(self) -> str:
        """The epoch of this life; empty where it is not known."""
        return "" if self.is_lost else self.epoch

    def adopt(self, epoch: str, reached: int) -> None:
        """Works in this life from now on."""
        self.epoch, self.reached, self.coming = epoch, reached, ""

    def follow(self, reached: int) -> None:
        """Takes note of how far the journal of this life is."""
        self.reached = max(self.reached, reached)

    def answered(self, *, now: bool) -> None:
        """Takes note of whether Redis answered this process just now."""
        if not now:
            self._answers_since_s = math.inf
        elif self._answers_since_s == math.inf:
            self._answers_since_s = time.monotonic()

    @property
    def in_touch_s(self) -> float:
        """For how many seconds Redis has answered this process; without end where it never failed to."""
        return max(0.0, time.monotonic() - self._answers_since_s)

    def doubt(self) -> None:
        """Lets whoever keeps the life look at once."""
        self._doubts.set()

    async def doubted(self, limit_s: float) -> None:
        """Waits until somebody doubts, at most `limit_s` seconds."""
        try:
            await asyncio.wait_for(self._doubts.wait(), limit_s)
        except TimeoutError:
            return
        finally:
            self._doubts.clear()

    def remember(self, *facts: Told) -> None:
        """Keeps facts that were just told until they are known to be stored, to tell them again should they be lost."""
        if self.epoch == UNCHECKED:
            return
        for fact in facts:
            weight = _weight(fact)
            self._kept.append((self.now_ms(), weight, fact))
            self._weight += weight
            self._resting += _rests(fact)
        while self._weight > _MOST_KEPT:
            self._let_go()
            self.complete = False

    def stored_before(self, oldest_ms: int | None, now_ms: int) -> None:
        """Lets go of what is stored: what was told before the oldest entry of the journal, or before now when it is
        empty. Times are of Redis's clock."""
        self._ahead_ms = now_ms - _local_ms()
        stored_ms = (now_ms if oldest_ms is None else oldest_ms) - _CLOCK_MS
        while self._kept and self._kept[0][0] < stored_ms:
            self._let_go()
        while self._kept and self._kept[0][0] < now_ms - _LONGEST_KEPT_MS:
            self._let_go()
            self.complete = False
        if not self._kept:
            self.complete = True

    def told_again(self) -> None:
        """Counts what is kept as told now."""
        now_ms = self.now_ms()
        self._kept = deque((now_ms, weight, fact) for _, weight, fact in self._kept)

    def testimony(self) -> list[Told]:
        """What was told here and may not be stored, the oldest first."""
        return [fact for _, _, fact in self._kept]

    def resting(self) -> list[Told]:
        """Events that were taken here while Postgres was away, and that Redis alone may have."""
        return [fact for fact in self.testimony() if _rests(fact)] if self._resting else []

    def forget(self, facts: Iterable[Told]) -> None:
        """Lets go of facts that are known to be stored."""
        known = {id(fact) for fact in facts}
        kept, self._kept = self._kept, deque()
        self._weight = self._resting = 0
        for moment, weight, fact in kept:
            if id(fact) not in known:
                self._kept.append((moment, weight, fact))
                self._weight += weight
                self._resting += _rests(fact)

    def now_ms(self) -> int:
        """The time by Redis's clock, as near as it is known here."""
        return _local_ms() + self._ahead_ms

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Marks a step whose fact is known here only when it ends: nobody testifies before it has."""
        mark = object()
        self._under_way.add(mark)
        try:
            yield
        finally:
            self._under_way.discard(mark)

    async def finished(self, limit_s: float) -> bool:
        """Waits until what is under way now has ended; False when that takes longer than `limit_s`."""
        begun = set(self._under_way)
        deadline = asyncio.get_running_loop().time() + limit_s
        while begun & self._under_way:
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(0.01)
        return True

    def _let_go(self) -> None:
        _, weight, fact = self._kept.popleft()
        self._weight -= weight
        self._resting -= _rests(fact)


def _rests(fact: Told) -> bool:
    return bool(fact["f"] == "accepted")


def _weight(fact: Told) -> int:
    """How much of a fact there is: one a person or a delivery."""
    return max([1, *(len(fact[name]) for name in ("recipients", "n", "d") if name in fact)])


def _local_ms() -> int:
    return time.time_ns() // 1_000_000
