"""`tocsin receipts` and `tocsin look-ups`: how well receipts come, and what providers answered when they were asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

from tocsin.cli.journey import Document, clock
from tocsin.cli.options import with_server
from tocsin.cli.screen import Screen
from tocsin.cli.server import Server
from tocsin.storage.look_ups import Result


@click.command(short_help="How well providers' receipts come, by day.")
@click.option("--days", type=click.IntRange(1, 366), default=7, show_default=True, help="How many days back.")
@with_server
async def receipts(server: Server, screen: Screen, days: int) -> None:
    """Show how well providers' receipts (callbacks) come: a row a day (UTC) and provider."""
    first = datetime.now(UTC).date() - timedelta(days=days - 1)
    found = await server.get("/api/reconciliation/callbacks", **{"from": first.isoformat()})
    screen.answer(found)
    if not found["data"]:
        screen.tell("Nothing was sent that should have a receipt.", "dim")
        return
    columns = ["day", "provider", "expected", "received", "share", "mean delay", "> 5 min", "> 10 min", "never"]
    screen.table([*columns, "the provider counts"], [_row(each) for each in found["data"]])


def _row(day: Document) -> list[object]:
    delay, share = day["meanDelayMs"], day["share"]
    return [
        day["day"],
        day["provider"],
        str(day["expected"]),
        str(day["received"]),
        None if share is None else f"{share:.1%}",
        None if delay is None else f"{delay / 1000:.1f} s",
        *(str(day[name]) for name in ("lateBy5Minutes", "lateBy10Minutes", "neverReceived")),
        None if day["providerTotal"] is None else str(day["providerTotal"]),
    ]


@click.command("look-ups", short_help="What providers answered about deliveries in doubt.")
@click.option("--result", type=click.Choice(list(Result), case_sensitive=False), help="Only those.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="How many to list.")
@with_server
async def look_ups(server: Server, screen: Screen, result: str | None, limit: int) -> None:
    """Show what providers answered when they were asked what became of deliveries in doubt.

    TIE (several messages fit, or one fits several deliveries) and LOW (one fits badly) are for a person to judge:
    nothing is changed by them. `tocsin settle` says what is true.
    """
    found = [row async for row in server.pages("/api/reconciliation/look-ups", limit, result=result)]
    screen.answer({"data": found})
    if not found:
        screen.tell("No provider was asked.", "dim")
        return
    columns = ["delivery", "attempt", "result", "confidence", "off by", "provider's id", "word", "asked (UTC)", "times"]
    screen.table(columns, [_answer(each) for each in found])


def _answer(row: Document) -> list[object]:
    off = row["differenceMs"]
    return [
        row["deliveryId"],
        str(row["attempt"]),
        row["result"],
        row["confidence"],
        None if off is None else f"{off / 1000:+.1f} s",
        row["providerId"],
        row["providerStatus"],
        clock(row["askedAt"]),
        str(row["times"]),
    ]
