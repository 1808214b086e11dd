"""`tocsin partitions`: the partitions of notifications and deliveries, and dropping those of long ago."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import click

from tocsin.cli.options import FAILED, as_json_option, finish, settings_here
from tocsin.cli.screen import Screen
from tocsin.domain.settings import Settings
from tocsin.storage import dropping
from tocsin.storage.embedded_postgres import EmbeddedPostgres, running_address
from tocsin.storage.id_ranges import LAST_MS
from tocsin.storage.partitions import Partition

_MB = 1024 * 1024


@click.group()
def partitions() -> None:
    """What is stored, by its time; what is of long ago dropped."""


@partitions.command("list")
@as_json_option
def list_partitions(*, as_json: bool) -> None:
    """List the partitions: of which time their rows are, about how many, and how large they are with their indexes."""
    screen = Screen(as_json=as_json)

    async def work() -> None:
        with _postgres(settings_here()) as url:
            found = await asyncio.to_thread(dropping.known, url)
        _show(screen, found)
        screen.answer({"data": list(map(_document, found))})

    finish(screen, work())


@partitions.command()
@click.option(
    "--before",
    type=click.DateTime(["%Y-%m-%d"]),
    required=True,
    help="The day (UTC) before which all of it lies.",
)
@click.option("--yes", is_flag=True, help="Drop it, and not only say what would be dropped.")
@as_json_option
def drop(*, before: datetime, yes: bool, as_json: bool) -> None:
    """Drop the partitions whose whole time is before a day, and what of before then has no partition.

    Notifications and deliveries of then are gone, from inboxes too; their events stay, with their counts. Nothing is
    dropped while something of then is not final. The exit status is 1 when nothing was dropped.
    """
    screen = Screen(as_json=as_json)
    before_ms = round(before.replace(tzinfo=UTC).timestamp() * 1000)
    if before_ms > time.time_ns() // 1_000_000:
        raise click.BadParameter("that day is yet to come", param_hint="--before")

    async def work() -> int | None:
        with _postgres(settings_here()) as url:
            found = await asyncio.to_thread(_drop if yes else dropping.old, url, before_ms)
        _show(screen, found.partitions)
        is_any = bool(found.partitions) or any(found.strays.values())
        dropped = yes and is_any
        for table, count in found.strays.items():
            if count:
                screen.tell(f"{count} rows of {table}_default")
        screen.tell(_told(found, dropped=dropped, is_any=is_any))
        screen.answer(
            {
                "dropped": dropped,
                "data": list(map(_document, found.partitions)),
                "strays": found.strays,
                "openDeliveries": found.open_deliveries,
                "unfinishedEvents": found.unfinished_events,
            }
        )
        return None if dropped else FAILED

    finish(screen, work())


def _drop(url: str, before_ms: int) -> dropping.Old:
    return dropping.drop(url, before_ms, "command line")


def _told(found: dropping.Old, *, dropped: bool, is_any: bool) -> str:
    if dropped:
        return "Dropped."
    if not is_any:
        return "There is nothing of before then."
    if found.open_deliveries or found.unfinished_events:
        return (
            f"{found.open_deliveries} deliveries and {found.unfinished_events} events of before then are not final:"
            " nothing can be dropped."
        )
    return "Nothing is dropped; add --yes to drop this."


def _show(screen: Screen, found: Sequence[Partition]) -> None:
    rows = [
        (each.name, _day(each.start_ms), _day(each.end_ms), f"{each.rows:,}", f"{each.size / _MB:,.1f} MB")
        for each in found
    ]
    if rows:
        screen.table(["partition", "from (UTC)", "to before", "rows, about", "size"], rows)


def _document(each: Partition) -> dict[str, object]:
    return {
        "name": each.name,
        "table": each.table,
        "from": _day(each.start_ms) or None,
        "to": _day(each.end_ms) or None,
        "rows": each.rows,
        "size": each.size,
    }


def _day(ms: int) -> str:
    """Empty where a partition has no such bound."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d") if 0 < ms < LAST_MS else ""


@contextmanager
def _postgres(settings: Settings) -> Iterator[str]:
    """The address of the Postgres of these settings; our own is started for as long as this lasts, where it does not
    run already."""
    url = settings.postgres.url or running_address(settings.data.dir)
    if url is not None:
        yield url
        return
    own = EmbeddedPostgres(settings.data.dir)
    try:
        yield own.start()
    finally:
        own.stop()
