"""Reconciliation (R6, design §7): Postgres against Redis against the providers, by the clock and on demand.

One run at a time, under a lock. It looks in Redis first and then in Postgres, judges only what Postgres has heard of by
then, and takes out only what two runs agree on. What it walks it walks in pages and for a limited time; the next run
goes on where it stopped. Used by jobs.py and by http/reconciliation.py.
"""

import time
from collections.abc import Mapping
from typing import Final

from loguru import logger

from tocsin.actors.alerts import Alerts
from tocsin.actors.missing import find_missing
from tocsin.actors.orphans import find_orphans
from tocsin.actors.preflight import look_ahead
from tocsin.actors.provider_check import check_providers
from tocsin.actors.rounds import Round
from tocsin.actors.short import find_short
from tocsin.actors.stalled import find_leftovers, find_stalled
from tocsin.channels.contract import Sender
from tocsin.domain.delivery import Channel, Reason
from tocsin.domain.errors import Conflict
from tocsin.storage import provider_ledger, reconciliations
from tocsin.storage.reconciliations import Report
from tocsin.storage.store import Store

SCHEDULE: Final = "schedule"
"""Who started a run that the clock started."""
_SHARE_OF_PERIOD: Final = 0.9
_LOCK: Final = "reconcile"
_DAYS_RUNNING: Final = 3
_FOR_THE_OPERATOR: Final = (Reason.NOT_CONFIGURED, Reason.PROVIDER_DOWN, Reason.MISSING)
"""What stands in the way of something that is due, and can be mended."""


class RunUnderWay(Conflict):
    """Another run of reconciliation is under way."""


class Reconciler:
    """Runs reconciliations of one process, on one event loop."""

    def __init__(self, store: Store, alerts: Alerts, senders: Mapping[Channel, Sender]) -> None:
        self._store = store
        self._alerts = alerts
        self._senders = senders

    async def run(self, by: str, *, repair: bool) -> Report:
        """Compares, mends if `repair`, keeps and answers what was found. Raises RunUnderWay, and Unavailable."""
        settings = self._store.settings.reconcile
        async with self._store.lock(_LOCK) as mine:
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
        await find_stalled(round_)
        await find_short(round_)
        await find_leftovers(round_)
        await check_providers(round_, self._senders)
        configured = {channel: sender.configured for channel, sender in self._senders.items()}
        round_.preflight = (await look_ahead(self._store, configured)).as_json()

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
            text = "Postgres and Redis differed in what is in motion; see the last runs of reconciliation."
            await self._alerts.raise_alert("difference", text, counts)
        await self._tell_of_duplicates(report)
        await self._tell_of_what_is_due(report)

    async def _tell_of_duplicates(self, report: Report) -> None:
        found = {
            provider: counts["duplicates"] for provider, counts in report.providers.items() if "duplicates" in counts
        }
        if not found:
            return
        if sum(found.values()) >= self._store.settings.reconcile.alert_duplicates:
            await self._alerts.raise_alert("duplicates", "Providers have messages twice.", found)
        if await self._store.postgres.call(provider_ledger.days_with_duplicates) >= _DAYS_RUNNING:
            text = f"Providers had messages twice on {_DAYS_RUNNING} days running."
            await self._alerts.raise_alert("duplicates_running", text, found)

    async def _tell_of_what_is_due(self, report: Report) -> None:
        hindered = (report.preflight or {}).get("hindered", {})
        broken = {str(reason): hindered[reason] for reason in _FOR_THE_OPERATOR if reason in hindered}
        if broken:
            await self._alerts.raise_alert("preflight", "What is due soon cannot go out as things stand.", broken)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
