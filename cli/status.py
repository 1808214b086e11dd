"""`tocsin status`: what became of an event, a notification or a delivery; or finding deliveries (D5)."""

from __future__ import annotations

import json
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import click

from tocsin.cli.journey import if_known
from tocsin.cli.options import with_server
from tocsin.cli.screen import Screen, plain
from tocsin.cli.server import Server
from tocsin.cli.told import progress_line, tell_counts, tell_deliveries, tell_event, tell_notification, tell_steps
from tocsin.domain.delivery import Channel, Status
from tocsin.domain.units import parse_duration

_EVENT_ID_VERSION: Final = 7


@click.command()
@click.argument("reference", required=False)
@click.option("--user", help="Deliveries to this user.")
@click.option(
    "--status", "standing", type=click.Choice(list(Status), case_sensitive=False), help="Those that stand so."
)
@click.option("--channel", type=click.Choice(list(Channel), case_sensitive=False), help="Those on this channel.")
@click.option("--since", help="Those of events since then: an ISO time with its zone, or how long ago, such as 2h.")
@click.option("--until", help="Those of events until then, written alike.")
@click.option("--watch", is_flag=True, help="Follow an event until nothing more of it is to go out.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="How many to list.")
@with_server
async def status(
    server: Server, screen: Screen, reference: str | None, limit: int, *, watch: bool, **given: str | None
) -> None:
    """Show what became of something, or find deliveries.

    REFERENCE is the id of an event, a notification or a delivery, or one that a provider gave. With filters, or without
    a REFERENCE, the deliveries that fit are listed, those of the newest events first.
    """
    if watch and (reference is None or any(given.values())):
        raise click.UsageError("--watch follows one event: give its id, and no filter")
    if watch:
        await _watch(server, screen, str(reference))
        return
    if reference is not None and not any(given.values()):
        await _look_up(server, screen, reference, limit)
        return
    found = await _find(server, limit, reference=reference, **_query(given, datetime.now(UTC)))
    screen.answer({"data": found})
    tell_deliveries(screen, found, with_person=True)
    if len(found) == limit:
        screen.tell(f"These are the first {limit}; --limit shows more.", "dim")


async def _watch(server: Server, screen: Screen, reference: str) -> None:
    """Tells an event's counts whenever they change; for programs one document a line."""
    identifier = _identifier(reference)
    if identifier is None or identifier.version != _EVENT_ID_VERSION:
        raise click.UsageError("--watch takes the id of an event")
    async with aclosing(server.stream(f"/api/events/{identifier}/stream")) as stream:
        async for told in stream:
            if screen.as_json:
                click.echo(json.dumps(told, ensure_ascii=False))
            screen.tell(progress_line(told))
            if told["final"]:
                tell_counts(screen, told["counts"])
                return
    raise click.ClickException("The server ended before the event did; try again.")


async def _look_up(server: Server, screen: Screen, reference: str, limit: int) -> None:
    identifier = _identifier(reference)
    version = identifier.version if identifier else None
    reference = str(identifier or reference)
    if version == _EVENT_ID_VERSION:
        known = await _event(server, screen, reference, limit)
    elif identifier:
        known = await _notification(server, screen, reference) or await _delivery(server, screen, reference)
    else:
        found = await _find(server, 1, reference=reference)
        known = bool(found) and await _delivery(server, screen, found[0]["id"])
    if not known:
        raise click.ClickException(f"Nothing has the id {plain(reference)}, or this key may not see it.")


async def _event(server: Server, screen: Screen, reference: str, limit: int) -> bool:
    event = await if_known(server.get(f"/api/events/{reference}"))
    if event is None:
        return False
    found = await _find(server, limit, reference=reference)
    screen.answer({"event": event, "deliveries": found})
    tell_event(screen, event)
    tell_deliveries(screen, found, with_person=True)
    return True


async def _notification(server: Server, screen: Screen, reference: str) -> bool:
    journey = await if_known(server.get(f"/api/notifications/{reference}/journey"))
    if journey is None:
        return False
    screen.answer(journey)
    tell_notification(screen, journey["notification"])
    tell_deliveries(screen, journey["deliveries"], with_person=False)
    tell_steps(screen, journey["journey"], journey["notification"])
    return True


async def _delivery(server: Server, screen: Screen, reference: str) -> bool:
    delivery = await if_known(server.get(f"/api/deliveries/{reference}"))
    if delivery is None:
        return False
    journey = await if_known(server.get(f"/api/notifications/{delivery['notificationId']}/journey"))
    steps = [step for step in journey["journey"] if step["deliveryId"] == delivery["id"]] if journey else []
    screen.answer({"delivery": delivery, "journey": steps})
    if journey:
        tell_notification(screen, journey["notification"])
    screen.table(["", ""], [(name, value) for name, value in delivery.items() if value is not None])
    if journey:
        tell_steps(screen, steps, journey["notification"])
    return True


async def _find(server: Server, limit: int, **query: Any) -> list[dict[str, Any]]:
    return [row async for row in server.pages("/api/deliveries", limit, **query)]


def _query(given: dict[str, str | None], now: datetime) -> dict[str, str | None]:
    return {
        "userId": given["user"],
        "status": given["standing"],
        "channel": given["channel"],
        "from": moment(given["since"], now, "--since"),
        "to": moment(given["until"], now, "--until"),
    }


def moment(text: str | None, now: datetime, option: str) -> str | None:
    """A time for the API, from an ISO time with its zone, or from how long before `now` it was. Raises BadParameter."""
    if text is None:
        return None
    for read in (_time_ago, _time):
        with suppress(ValueError, OverflowError):
            return read(text, now).isoformat()
    raise click.BadParameter("write 2026-11-21T09:30:00Z, or 30m, 2h, 7d for how long ago", param_hint=option)


def _time_ago(text: str, now: datetime) -> datetime:
    return now - timedelta(milliseconds=parse_duration(text))


def _time(text: str, now: datetime) -> datetime:
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("a time without a zone is no one time")
    return found


def _identifier(reference: str) -> UUID | None:
    """An id of ours; None for one that somebody else gave."""
    try:
        return UUID(reference)
    except ValueError:
        return None
