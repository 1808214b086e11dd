"""One run of reconciliation while it is under way: its time, its counts, and what it may judge."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from uuid import UUID, uuid4

from tocsin.domain.setting_sections import ReconcileSettings
from tocsin.storage.reconciliations import Affected, Check, Place, Report
from tocsin.storage.store import Store

_Given = TypeVar("_Given")
_Answer = TypeVar("_Answer")

_AGREES_FOR_MS: Final = 86_400_000
_MOST_SUSPECTS: Final = 5_000
_MOST_WORST: Final = 10
_BRIDGE_S: Final = 10.0
_IMPATIENT_S: Final = 0.5

DIFFERENCES: Final = ("missing", "stuck", "unindexed", "events", "unrouted", "orphans", "entries", "leftovers")
"""The checks of Postgres against Redis; together they decide whether the two are in sync."""


@dataclass(slots=True)
class Round:
    """A run. `mend` is whether it repairs what it finds."""

    store: Store
    by: str
    mend: bool
    place: Place
    started_ms: int
    until_s: float
    """When its time is over, on the monotonic clock."""
    id: UUID = field(default_factory=uuid4)
    ledger: int = 0
    whole: bool = True
    checks: dict[str, Check] = field(default_factory=lambda: defaultdict(Check))
    _worst: Counter[str] = field(default_factory=Counter)
    _behind: bool = False

    @property
    def settings(self) -> ReconcileSettings:
        return self.store.settings.reconcile

    def is_over(self, share: float = 1.0) -> bool:
        """Whether `share` of the run's time is used up."""
        return time.monotonic() > self.until_s - (1 - share) * self.settings.limit / 1000

    def found(self, check: str, event: str | None, *, repaired: bool = False) -> None:
        """Counts a difference."""
        self.checks[check].before += 1
        self.checks[check].repaired += repaired
        if event is not None:
            self._worst[event] += 1

    def skipped(self, check: str, count: int) -> None:
        """Counts what could merely be late."""
        self.checks[check].not_judged += count

    async def caught_up(self) -> bool:
        """Waits until Postgres has heard of everything that Redis did before this call; False when that takes too
        long. What was seen in Redis before may be judged by what Postgres says after."""
        wait_s = _IMPATIENT_S if self._behind else self.settings.wait / 1000
        self._behind = not await self.store.settled(wait_s)
        return not self._behind

    def agrees(self, suspect: str) -> bool:
        """Whether an earlier run saw the same; else this one has seen it, for a later one to agree with."""
        known = self.place.suspects.get(suspect)
        if known is not None and known[0] != str(self.id):
            return True
        if len(self.place.suspects) < _MOST_SUSPECTS:
            self.place.suspects[suspect] = (str(self.id), self.started_ms)
        return False

    def clears(self, suspects: Iterable[str]) -> None:
        """Takes back what is not suspected any more."""
        for suspect in suspects:
            self.place.suspects.pop(suspect, None)

    @staticmethod
    def from_thread(work: Callable[[_Given], Coroutine[Any, Any, _Answer]]) -> Callable[[_Given], _Answer]:
        """`work` of this event loop for a thread that holds rows locked meanwhile."""
        loop = asyncio.get_running_loop()
        return lambda given: asyncio.run_coroutine_threadsafe(work(given), loop).result(_BRIDGE_S)

    def report(self, now_ms: int) -> Report:
        """What was found."""
        self.place.suspects = {
            name: seen for name, seen in self.place.suspects.items() if now_ms - seen[1] < _AGREES_FOR_MS
        }
        checks = {name: check for name, check in self.checks.items() if check.before or check.not_judged}
        difference = sum(self.checks[name].before for name in DIFFERENCES)
        missing = self.checks["missing"].before + self.checks["stuck"].before
        return Report(
            id=self.id,
            started_ms=self.started_ms,
            ended_ms=now_ms,
            by=self.by,
            repair=self.mend,
            whole=self.whole,
            ledger=self.ledger,
            actual=self.ledger - missing + self.checks["orphans"].before,
            difference=difference,
            not_judged=sum(check.not_judged for check in checks.values()),
            in_sync=difference == 0,
            checks=checks,
            worst=[Affected(event, count) for event, count in self._worst.most_common(_MOST_WORST)],
        )
