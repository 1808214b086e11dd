"""One run of reconciliation while it is under way: its time, its counts, and what it may judge."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID, uuid4

from tocsin.domain.setting_sections import ReconcileSettings
from tocsin.storage.motion import Wrong
from tocsin.storage.reconciliations import Affected, Check, Place, Report
from tocsin.storage.store import Store

_AGREES_FOR_MS: Final = 86_400_000
_MOST_SUSPECTS: Final = 5_000
_MOST_WORST: Final = 10
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
    preflight: Mapping[str, Any] | None = None
    _worst: Counter[str] = field(default_factory=Counter)
    _providers: dict[str, dict[str, int]] = field(default_factory=dict)
    _unindexed: set[Wrong] = field(default_factory=set)
    _behind: bool = False

    @property
    def settings(self) -> ReconcileSettings:
        return self.store.settings.reconcile

    def is_over(self, share: float = 1.0) -> bool:
        """Whether `share` of the run's time is used up."""
        return time.monotonic() > self.until_s - (1 - share) * self.settings.limit / 1000

    def found(self, check: str, event: str | None, *, repaired: bool = False, count: int = 1) -> None:
        """Counts `count` differences of an event."""
        self.checks[check].before += count
        self.checks[check].repaired += count if repaired else 0
        if event is not None:
            self._worst[event] += count

    def counted(self, check: str, before: Mapping[str, int], after: Mapping[str, int]) -> None:
        """Notes how many of something there were by provider, and how many are left."""
        was, left = sum(before.values()), sum(after.values())
        self.checks[check].before += was
        self.checks[check].repaired += max(0, was - left)
        for provider, count in before.items():
            self.of_provider(provider, check, count)

    def of_provider(self, provider: str | None, check: str, count: int) -> None:
        """Counts by provider beside the whole."""
        counts = self._providers.setdefault(provider or "unknown", {})
        counts[check] = counts.get(check, 0) + count

    def found_unindexed(self, wrong: Wrong, event: str | None) -> None:
        """Counts a step that the index did not know, once: it may be met on more than one way."""
        if wrong not in self._unindexed:
            self._unindexed.add(wrong)
            self.found("unindexed", event, repaired=self.mend)

    def skipped(self, check: str, count: int) -> None:
        """Counts what could merely be late."""
        self.checks[check].not_judged += count

    async def caught_up(self) -> bool:
        """Waits until Postgres has heard of everything that Redis did before this call; False when that takes too
        long. What was seen in Redis before may be judged by what Postgres says after."""
        wait_s = _IMPATIENT_S if self._behind else self.settings.wait / 1000
        self._behind = not await self.store.caught_up(wait_s)
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
            providers=self._providers,
            preflight=self.preflight,
        )
