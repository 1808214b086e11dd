"""Reconciliation on demand, and what its runs found (R6)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

from pydantic import Field

from tocsin.actors.preflight import look_ahead
from tocsin.actors.reconcile import Reconciler, RunUnderWay
from tocsin.channels.contract import Sender
from tocsin.channels.registry import build_senders, context_of
from tocsin.domain.delivery import Channel, Reason
from tocsin.domain.errors import NotFound
from tocsin.http.caller import ADMINS
from tocsin.http.context import Context
from tocsin.http.cursors import cursor_of, page_of, place_of
from tocsin.http.endpoint import Call, Endpoint
from tocsin.http.idempotency import once
from tocsin.http.problems import BAD_CURSOR, RECONCILING, Problem
from tocsin.http.shapes import Answer, Asked, Listing, Moment, NoQuery, Paging
from tocsin.storage import reconciliations
from tocsin.storage.reconciliations import Report

_RETRY_AFTER_S: Final = 5


class PostRun(Asked):
    """Whether the run mends what it finds."""

    repair: bool = False


class CheckShown(Answer):
    """One kind of difference: how many before, how many mended, how many left."""

    before: int
    repaired: int
    after: int
    not_judged: int
    """What could merely be late, because Postgres had not heard of everything yet."""


class AffectedShown(Answer):
    """An event, and how many differences were of it."""

    event_id: str
    count: int


class PreflightShown(Answer):
    """What is due between two times, how much of it is hindered, by reason, and the events most affected. `whole` is
    false when more is due than is looked at."""

    from_: Moment = Field(alias="from")
    to: Moment
    due: int
    whole: bool
    hindered: dict[Reason, int]
    events: tuple[AffectedShown, ...]


class Run(Answer):
    """One run. `whole` is false when its time was over before it had looked at everything; the next goes on."""

    id: UUID
    started_at: Moment
    ended_at: Moment
    by: str
    repair: bool
    whole: bool
    ledger: int
    """Deliveries that are open in Postgres."""
    actual: int
    """Those that Redis has in motion."""
    difference: int
    not_judged: int
    in_sync: bool
    checks: dict[str, CheckShown]
    """By kind: missing, stuck, unindexed, events, unrouted, orphans, entries, leftovers, miscounted, ..."""
    worst: tuple[AffectedShown, ...]
    """The events most affected."""
    providers: dict[str, dict[str, int]]
    """By provider: duplicates, receipts that never came, and how many are uncertain."""
    preflight: PreflightShown | None


class Runs(Listing[Run]):
    """The runs, the newest first."""


async def post_run(call: Call[PostRun | None, NoQuery]) -> Run:
    """Compares now, and answers what was found. It takes `reconcile.limit` at most, and some seconds more while
    Postgres has not heard of everything."""
    repair = call.body.repair if call.body else False

    async def make() -> dict[str, Any]:
        async with _senders(call.context) as senders:
            reconciler = Reconciler(call.context.store, call.context.alerts, senders)
            try:
                report = await reconciler.run(call.caller.name, repair=repair)
            except RunUnderWay as error:
                raise Problem(RECONCILING, retry_after_s=_RETRY_AFTER_S) from error
        return _details(report)

    return _shown(await once(call, make))


async def list_runs(call: Call[None, Paging]) -> Runs:
    """The runs, the newest first: how many deliveries were open, how many of them in motion, and the difference."""
    before = place_of(call.query.cursor) if call.query.cursor else None
    found = await call.context.store.postgres.call(reconciliations.reports, call.query.limit + 1, before)
    page, after = page_of(found, call.query.limit, lambda last: cursor_of(last.started_ms, last.id))
    return Runs(data=tuple(_shown(_details(report)) for report in page), next_cursor=after)


async def get_run(call: Call[None, NoQuery]) -> Run:
    """One run."""
    found = await call.context.store.postgres.call(reconciliations.report, call.id("run"))
    if found is None:
        raise NotFound
    return _shown(_details(found))


async def get_preflight(call: Call[None, NoQuery]) -> PreflightShown:
    """What is due in `reconcile.preflight_from` to `preflight_to`, and what stands in its way: looked at now."""
    configured = {channel: carrier.configured for channel, carrier in call.context.carriers.items()}
    return _preflight_of((await look_ahead(call.context.store, configured)).as_json())


@asynccontextmanager
async def _senders(context: Context) -> AsyncIterator[dict[Channel, Sender]]:
    """The providers, to be asked what they have; nothing is sent from here."""
    senders = build_senders(context.settings, context_of(context.settings, sandbox=context.outbox is not None))
    try:
        yield senders
    finally:
        for sender in senders.values():
            await sender.close()


def _preflight_of(kept: Mapping[str, Any]) -> PreflightShown:
    return PreflightShown(
        from_=kept["from"],
        to=kept["to"],
        due=kept["due"],
        whole=kept["whole"],
        hindered=kept["hindered"],
        events=tuple(AffectedShown(event_id=each["event"], count=each["count"]) for each in kept["events"]),
    )


def _shown(details: dict[str, Any]) -> Run:
    preflight = details["preflight"]
    return Run(**details | {"preflight": _preflight_of(preflight) if preflight else None})


def _details(report: Report) -> dict[str, Any]:
    return {
        "id": str(report.id),
        "started_at": report.started_ms,
        "ended_at": report.ended_ms,
        "by": report.by,
        "repair": report.repair,
        "whole": report.whole,
        "ledger": report.ledger,
        "actual": report.actual,
        "difference": report.difference,
        "not_judged": report.not_judged,
        "in_sync": report.in_sync,
        "checks": {
            name: {
                "before": check.before,
                "repaired": check.repaired,
                "after": check.after,
                "not_judged": check.not_judged,
            }
            for name, check in report.checks.items()
        },
        "worst": [{"event_id": each.event, "count": each.count} for each in report.worst],
        "providers": report.providers,
        "preflight": report.preflight,
    }


_PATH: Final = "/api/reconciliation/runs"
_TAG: Final = "reconciliation"

ENDPOINTS: Final = (
    Endpoint(
        method="POST",
        path=_PATH,
        handler=post_run,
        summary="Compare Postgres, Redis and the providers now",
        tag=_TAG,
        who=ADMINS,
        body=PostRun,
        body_optional=True,
        answer=Run,
        status=201,
        problems=(RECONCILING,),
        idempotent=True,
    ),
    Endpoint(
        method="GET",
        path=_PATH,
        handler=list_runs,
        summary="What runs found",
        tag=_TAG,
        who=ADMINS,
        query=Paging,
        answer=Runs,
        problems=(BAD_CURSOR,),
    ),
    Endpoint(
        method="GET",
        path=f"{_PATH}/{{run}}",
        handler=get_run,
        summary="What one run found",
        tag=_TAG,
        who=ADMINS,
        answer=Run,
    ),
    Endpoint(
        method="GET",
        path="/api/reconciliation/preflight",
        handler=get_preflight,
        summary="What is due soon, and what stands in its way",
        tag=_TAG,
        who=ADMINS,
        answer=PreflightShown,
    ),
)
