"""`tocsin reconcile`: Postgres against Redis against the providers, now."""

from __future__ import annotations

import asyncio
from typing import Final

import click
from rich.text import Text

from tocsin.actors.rounds import DIFFERENCES
from tocsin.cli.journey import Document, clock
from tocsin.cli.options import FAILED, with_server
from tocsin.cli.screen import Screen
from tocsin.cli.server import Refused, Server

_RUN_S: Final = 180.0
"""How long to wait for a run: longer than `reconcile.limit` and its waits are set by anybody."""
_TRIES: Final = 5
_PAUSE_S: Final = 2.0

MEANING: Final = {
    "missing": "open in Postgres, not in motion",
    "stuck": "a provider call that nobody holds any more",
    "unindexed": "in motion, not in the time index",
    "events": "accepted, not being fanned out",
    "unrouted": "recipients without their notification",
    "orphans": "in motion, not open in Postgres",
    "entries": "entries of the time index without anything behind",
    "leftovers": "keys that nothing would remove",
    "miscounted": "counts of events that differ from their rows",
    "duplicates": "messages that a provider has twice",
    "receipts": "sent, and no receipt came",
    "uncertain": "outcome unknown",
}


@click.command(short_help="Compare Postgres, Redis and the providers.")
@click.option("--repair", is_flag=True, help="Mend what is found; without it nothing is changed.")
@click.option("--preflight", is_flag=True, help="Look at what is due soon instead, and at what stands in its way.")
@click.option("--history", type=click.IntRange(1, 1000), metavar="N", help="Show the last N runs instead.")
@with_server
async def reconcile(
    server: Server, screen: Screen, *, repair: bool, preflight: bool, history: int | None
) -> int | None:
    """Compare Postgres, Redis and the providers, and say in numbers what differs.

    The server does the same by the clock (reconcile.every), one run at a time: another one is waited for, for ten
    seconds. Ends with 1 when something differs and is not mended.
    """
    if preflight:
        _tell_preflight(screen, await server.get("/api/reconciliation/preflight"))
        return None
    if history is not None:
        await _history(server, screen, history)
        return None
    run = await _run(server, repair=repair)
    screen.answer(run)
    _tell(screen, run)
    return FAILED if _left(run) else None


async def _run(server: Server, *, repair: bool) -> Document:
    for _ in range(_TRIES):
        try:
            return await _asked(server, repair=repair)
        except Refused as refused:
            if refused.code != "reconciling":
                raise
        await asyncio.sleep(_PAUSE_S)
    return await _asked(server, repair=repair)


async def _asked(server: Server, *, repair: bool) -> Document:
    run: Document = await server.post("/api/reconciliation/runs", {"repair": repair}, limit_s=_RUN_S)
    return run


async def _history(server: Server, screen: Screen, most: int) -> None:
    found = [run async for run in server.pages("/api/reconciliation/runs", most)]
    screen.answer({"data": found})
    rows = [
        (
            clock(run["startedAt"]),
            run["by"],
            *(str(run[figure]) for figure in ("ledger", "actual", "difference")),
            str(sum(check["repaired"] for check in run["checks"].values())),
            str(run["notJudged"]),
            _verdict(run),
        )
        for run in found
    ]
    columns = ["started (UTC)", "by", "ledger", "actual", "difference", "mended", "not judged", ""]
    screen.table(columns, rows)


def _tell(screen: Screen, run: Document) -> None:
    screen.tell(
        Text.assemble(
            f"{run['ledger']} deliveries are open in Postgres, {run['actual']} of them in motion in Redis: ",
            _verdict(run),
        )
    )
    rows = [
        (name, MEANING.get(name, ""), *(str(check[figure]) for figure in ("before", "repaired", "after", "notJudged")))
        for name, check in run["checks"].items()
    ]
    if rows:
        screen.table(["check", "what", "before", "mended", "after", "not judged"], rows)
    if run["worst"]:
        screen.table(["events most affected", ""], [(each["eventId"], str(each["count"])) for each in run["worst"]])
    if run["notJudged"]:
        screen.tell(f"{run['notJudged']} could merely be late, for Postgres has not heard of everything yet.", "yellow")
    if not run["whole"]:
        screen.tell("There was not time enough for all of it; the next run goes on where this one stopped.", "yellow")
    if _left(run) and not run["repair"]:
        screen.tell("Nothing was changed; --repair mends it.", "dim")


def _tell_preflight(screen: Screen, seen: Document) -> None:
    screen.answer(seen)
    screen.tell(f"{seen['due']} are due from {clock(seen['from'])} to {clock(seen['to'])} (UTC).")
    if seen["hindered"]:
        screen.table(["hindered by", ""], [(reason, str(count)) for reason, count in seen["hindered"].items()])
    elif seen["due"]:
        screen.tell("Nothing stands in their way.", "green")
    if seen["events"]:
        screen.table(["events most affected", ""], [(each["eventId"], str(each["count"])) for each in seen["events"]])
    if not seen["whole"]:
        screen.tell("More is due than was looked at.", "yellow")


def _left(run: Document) -> int:
    """How much of what Postgres and Redis differed in is not mended."""
    return sum(check["after"] for name, check in run["checks"].items() if name in DIFFERENCES)


def _verdict(run: Document) -> Text:
    return Text("in sync", style="green") if run["inSync"] else Text("not in sync", style="bold red")
