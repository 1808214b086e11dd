"""`tocsin cancel`: stops what has not gone out, of events named or of all that fit (S7)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, Final

import click

from tocsin.cli.options import with_server
from tocsin.cli.screen import Screen, plain
from tocsin.cli.server import Server
from tocsin.cli.status import moment

_LOOK_AGAIN_S: Final = 0.5


@click.command(short_help="Stop what has not gone out.")
@click.argument("events", nargs=-1)
@click.option("--event-key", help="The event that was posted with this key last.")
@click.option("--type", "kind", help="Events of this type.")
@click.option("--user", help="Nothing but this person's notifications.")
@click.option("--since", help="Events since then: an ISO time with its zone, or how long ago, such as 2h.")
@click.option("--until", help="Events until then, written alike.")
@click.option("--reason", help="Why; kept with the events and shown.")
@click.option("--no-wait", is_flag=True, help="End at once, though deliveries are still being ended one after another.")
@with_server
async def cancel(  # noqa: PLR0913  # one for each option
    server: Server,
    screen: Screen,
    events: tuple[str, ...],
    *,
    event_key: str | None,
    kind: str | None,
    user: str | None,
    since: str | None,
    until: str | None,
    reason: str | None,
    no_wait: bool,
) -> None:
    """Stop what has not gone out.

    EVENTS are ids. Without any, all events are stopped that fit the options and began before now; with --user nothing
    but that person's notifications of them. What was sent stays sent. Nothing starts any more once this is answered;
    the deliveries are ended one after another, which is waited for.
    """
    now = datetime.now(UTC)
    times = {"from": moment(since, now, "--since"), "to": moment(until, now, "--until")}
    asked = {"ids": list(events) or None, "key": event_key, "type": kind, "userId": user, "reason": reason, **times}
    if not any(value for name, value in asked.items() if name != "reason"):
        raise click.UsageError("name events, or give --event-key, --type, --user, --since or --until")
    body = {name: value for name, value in asked.items() if value}
    done = await server.post("/api/events/cancel", body)
    if not no_wait:
        done = await _ended(server, screen, done)
    screen.answer(done)
    more = "" if done["status"] == "DONE" else f" so far; ask again with GET /api/cancellations/{done['id']}"
    screen.tell(f"{_told(done)} will not go out{more}: {plain(done['reason'])}")


async def _ended(server: Server, screen: Screen, done: dict[str, Any]) -> dict[str, Any]:
    with screen.progress() as progress:
        task = progress.add_task("ending deliveries", total=None)
        while done["status"] == "RUNNING":
            progress.update(task, completed=done["cancelledCount"])
            await asyncio.sleep(_LOOK_AGAIN_S)
            try:
                done = await server.get(f"/api/cancellations/{done['id']}")
            except click.ClickException as error:
                screen.tell(f"It is stopped; how far its deliveries are cannot be seen now. {error.message}", "yellow")
                break
    return done


def _told(done: dict[str, Any]) -> str:
    events, deliveries = done["eventCount"], done["cancelledCount"]
    waiting = f"{deliveries} deliver{'y' if deliveries == 1 else 'ies'}"
    return f"{waiting} of {events} event{'' if events == 1 else 's'}" if events else waiting
