"""Reconciliation (R6, design §7): Postgres against Redis against the providers, by the clock and on demand.

One run at a time, under a lock. It looks in Redis first and then in Postgres, judges only what Postgres has heard of by
then, and takes out only what two runs agree on. What it walks it walks in pages and for a limited time; the next run
goes on where it stopped. Used by jobs.py and by http/reconciliation.py.
"""

import time
from typing import Final

from loguru import logger

from tocsin.actors.alerts import Alerts
from tocsin.actors.missing import find_missing
from tocsin.actors.orphans import find_orphans
from tocsin.actors.rounds import Round
from tocsin.domain.errors import Conflict
from tocsin.storage import reconciliations
from tocsin.storage.reconciliations import Report
from tocsin.storage.store import Store

SCHEDULE: Final = "schedule"
"""Who started a run that the clock started."""
_SHARE_OF_PERIOD: Final = 0.9
_LOCK: Final = "reconcile"
_LOCK_LONGER_MS: Final = 60_000
"""How much longer than a run the lock holds: a run ends what it has begun when its time is over."""


class RunUnderWay(Conflict):
    """Another run of reconciliation is under way."""


class Reconciler:
    """Runs reconciliations of one process, on one event loop."""

    def __init__(self, store: Store, alerts: Alerts) -> None:
        self._store = store
        self._alerts = alerts

    async def run(self, by: str, *, repair: bool) -> Report:
        """Compares, mends if `repair`, keeps and answers what was found. Raises RunUnderWay, and Unavailable."""
        settings = self._store.settings.reconcile
        held_s = (settings.limit + 4 * settings.wait + _LOCK_LONGER_MS) / 1000
        async with self._store.lock(_LOCK, limit_s=held_s) as mine:
            if not mine:
                raise RunUnderWay("another run of reconciliation is under way")
            round_ = Round(
                store=self._store,
                by=by,
                mend=repair,
                place=await self._store.postgres.call(reconciliations.place),
                started_ms=_now_ms(),
                until_s=time.monotonic() + settings.limit / 1000,
            )
            await self._look(round_)
            report = round_.report(_now_ms())
            await self._store.postgres.call(reconciliations.store, report, round_.place, keep_ms=settings.keep)
        await self._tell(report)
        return report

    async def by_the_clock(self) -> None:
        """A run for the scheduler: of the processes whose clocks strike within one period the first one does it."""
        settings = self._store.settings.reconcile
        if not await self._store.once("reconciled", int(settings.every * _SHARE_OF_PERIOD)):
            return
        try:
            await self.run(SCHEDULE, repair=settings.repair)
        except RunUnderWay:
            logger.debug("another process reconciles")

    async def _look(self, round_: Round) -> None:
        await find_missing(round_)
        await find_orphans(round_)

    async def _tell(self, report: Report) -> None:
        """Says what was found where a person should hear of it."""
        settings = self._store.settings.reconcile
        counts = {name: check.before for name, check in report.checks.items() if check.before}
        if report.not_judged:
            logger.info("reconciliation left {} for later: Postgres has not heard of them yet", report.not_judged)
        if not report.in_sync:
            logger.warning(
                "reconciliation found {} differences and mended {}: {}",
                report.difference, sum(check.repaired for check in report.checks.values()), counts,
            )  # fmt: skip
        if report.difference >= settings.alert_difference:
            await self._alerts.raise_alert(
                "difference", "Postgres and Redis differed in what is in motion; see the last reconciliations.", counts
            )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
