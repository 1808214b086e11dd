"""`tocsin bad-facts`: what could not be stored, looked at and tried again."""

from __future__ import annotations

import click

from tocsin.cli.journey import clock
from tocsin.cli.options import FAILED, with_server
from tocsin.cli.screen import Screen
from tocsin.cli.server import Server

_PATH = "/api/bad-facts"
_MOST_LISTED = 1_000


@click.group("bad-facts")
def bad_facts() -> None:
    """What could not be stored: look at it, try it again."""


@bad_facts.command("list", short_help="List what could not be stored, and why.")
@with_server
async def list_bad_facts(server: Server, screen: Screen) -> int | None:
    """List the journal entries that Postgres refused as data or that met a defect, each with the reason.

    The exit status is 1 when there are any. What they say is in the table bad_facts of Postgres alone.
    """
    found = [entry async for entry in server.pages(_PATH, most=_MOST_LISTED)]
    rows = [(each["id"], clock(each["keptAt"]), ", ".join(each["kinds"]), each["size"], each["why"]) for each in found]
    if found:
        screen.table(["entry", "kept (UTC)", "facts", "bytes", "why"], rows)
    else:
        screen.tell("Everything could be stored.")
    screen.answer({"data": found})
    return FAILED if found else None


@bad_facts.command("retry", short_help="Try again to store it.")
@click.argument("ids", nargs=-1)
@with_server
async def retry(server: Server, screen: Screen, ids: tuple[str, ...]) -> None:
    """Put entries back into the journal once the cause is mended: those named, or the hundred oldest.

    What is refused again is kept as bad again, under another id.
    """
    answered = await server.post(f"{_PATH}/retry", {"ids": list(ids)} if ids else {})
    screen.tell(f"{answered['retried']} entries are in the journal again; {answered['remaining']} are kept as bad.")
    screen.answer(answered)
