"""`tocsin dead-letters`: what will not be tried again by itself, by cause; replayed or put aside (R4)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from uuid import UUID

import click

from tocsin.cli.journey import Document, clock
from tocsin.cli.options import FAILED, with_server
from tocsin.cli.screen import Screen, status_text
from tocsin.cli.server import Server
from tocsin.cli.status import moment
from tocsin.domain.delivery import Channel, Reason, Status
from tocsin.storage.dead_letters import Discarded, LetterKind

_PATH: Final = "/api/dead-letters"
_AT_ONCE: Final = 200
_COUNTS: Final = ("replayed", "waiting", "skipped", "busy", "discarded")

Command = TypeVar("Command", bound=Callable[..., Any])


def _filters(command: Command) -> Command:
    """The options that say which dead letters."""
    for option in reversed(
        (
            click.option("--kind", type=click.Choice(list(LetterKind), case_sensitive=False), help="Of this kind."),
            click.option("--event", type=click.UUID, help="Those of this event."),
            click.option("--type", "event_type", help="Those of events of this type."),
            click.option("--user", help="Those to this user."),
            click.option("--channel", type=click.Choice(list(Channel), case_sensitive=False), help="On this channel."),
            click.option("--provider", help="Those that this provider carried."),
            click.option("--reason", type=click.Choice(list(Reason)), help="Those that ended for this reason of ours."),
            click.option("--code", help="Those that ended with this code of the provider's."),
            click.option(
                "--status",
                "standing",
                type=click.Choice([Status.FAILED, Status.DEAD], case_sensitive=False),
                help="Those that stand so.",
            ),
            click.option("--since", help="Of events since then: an ISO time with its zone, or how long ago: 2h."),
            click.option("--until", help="Of events until then, written alike."),
        )
    ):
        command = option(command)
    return command


@click.group("dead-letters")
def dead_letters() -> None:
    """What was given up: look at it, try it again, put it aside."""


@dead_letters.command("list")
@_filters
@click.option(
    "--discarded", type=click.Choice(list(Discarded), case_sensitive=False), help="NO (by default), YES or ALL."
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="How many to list.")
@with_server
async def list_letters(server: Server, screen: Screen, limit: int, discarded: str | None, **given: Any) -> None:
    """List dead letters, those of the newest events first."""
    query = _asked(given) | {"discarded": discarded}
    found = [letter async for letter in server.pages(_PATH, limit, **query)]
    screen.answer({"data": found})
    if not found:
        screen.tell("No dead letters.")
        return
    screen.table(["id", "failed (UTC)", "to", "channel", "status", "why", "said"], map(_row, found))
    if len(found) == limit:
        screen.tell(f"These are the first {limit}; --limit shows more.", "dim")


@dead_letters.command()
@_filters
@with_server
async def causes(server: Server, screen: Screen, **given: Any) -> None:
    """Group dead letters by why they died."""
    told = await server.get(f"{_PATH}/causes", **_asked(given))
    screen.answer(told)
    rows = [
        (
            cause["count"],
            cause["discarded"],
            cause["channel"] or cause["kind"].lower(),
            cause["provider"],
            status_text(cause["status"]),
            cause["reason"],
            cause["errorCode"],
            cause["sample"],
            clock(cause["firstAt"]),
            clock(cause["lastAt"]),
        )
        for cause in told["data"]
    ]
    columns = ["dead", "aside", "channel", "provider", "status", "reason", "code", "said", "first (UTC)", "last (UTC)"]
    if rows:
        screen.table(columns, rows)
    screen.tell(f"Dead letters: {told['total']}. Put aside: {told['discarded']}. Held as uncertain: {told['held']}.")


@dead_letters.command()
@click.argument("ids", nargs=-1, type=click.UUID)
@_filters
@click.option("--discarded", type=click.Choice(list(Discarded), case_sensitive=False), help="Those put aside too.")
@click.option("--all", "everything", is_flag=True, help="All of them, where nothing else is given.")
@with_server
async def retry(
    server: Server, screen: Screen, ids: tuple[UUID, ...], discarded: str | None, *, everything: bool, **given: Any
) -> int | None:
    """Replay dead letters: those named by their IDS, those that fit, or --all.

    Each gets further attempts, the first at once, with its identity and history kept. What was read, withdrawn or
    switched off meanwhile is not sent, and counted by reason; then the exit status is 1.
    """
    fitting = _asked(given) | {"discarded": discarded}
    done = await _sweep(server, screen, "retry", _bodies(ids, fitting, everything=everything))
    screen.answer(done)
    screen.tell(f"{done['replayed']} replayed.")
    for name, told in (
        ("waiting", "of them wait for Redis, which does not answer"),
        ("skipped", "are no dead letters, or are not known"),
        ("busy", "have something in motion, or in `tocsin bad-facts`; try them again later"),
    ):
        if done[name]:
            screen.tell(f"{done[name]} {told}.")
    for reason, count in done["refused"].items():
        screen.tell(f"{count} are not sent any more: {reason}.")
    return FAILED if done["refused"] or done["skipped"] or done["busy"] else None


@dead_letters.command()
@click.argument("ids", nargs=-1, type=click.UUID)
@_filters
@click.option("--all", "everything", is_flag=True, help="All of them, where nothing else is given.")
@click.option("--because", required=True, help="Why; it is kept with who did it and when.")
@with_server
async def discard(
    server: Server, screen: Screen, ids: tuple[UUID, ...], because: str, *, everything: bool, **given: Any
) -> int | None:
    """Put dead letters aside: those named by their IDS, those that fit, or --all. A retry takes one back."""
    bodies = [{**body, "reason": because} for body in _bodies(ids, _asked(given), everything=everything)]
    done = await _sweep(server, screen, "discard", bodies)
    screen.answer(done)
    screen.tell(f"{done['discarded']} put aside.")
    return FAILED if ids and done["discarded"] < len(set(ids)) else None


def _bodies(ids: Sequence[UUID], fitting: Document, *, everything: bool) -> list[Document]:
    """What to ask for: a part of the ids each, or all that fit. Raises UsageError where nothing was named."""
    wanted = {name: value for name, value in fitting.items() if value is not None}
    if not (ids or wanted or everything):
        raise click.UsageError("Name ids or a filter, or say --all.")
    if not ids:
        return [{"filter": wanted, "limit": _AT_ONCE}]
    named = list(map(str, dict.fromkeys(ids)))
    parts = [named[first : first + _AT_ONCE] for first in range(0, len(named), _AT_ONCE)]
    return [{"ids": part, "filter": wanted, "limit": _AT_ONCE} for part in parts]


async def _sweep(server: Server, screen: Screen, what: str, bodies: Sequence[Document]) -> dict[str, Any]:
    """The sums of all answers, page after page."""
    sums: dict[str, Any] = dict.fromkeys(_COUNTS, 0) | {"refused": {}}
    with screen.progress() as progress:
        task = progress.add_task(what.capitalize(), total=None)
        async for page in _pages(server, what, bodies):
            for name in _COUNTS:
                sums[name] += page.get(name, 0)
            for reason, count in page.get("refused", {}).items():
                sums["refused"][reason] = sums["refused"].get(reason, 0) + count
            looked_at = sums["replayed"] + sums["discarded"] + sums["skipped"] + sum(sums["refused"].values())
            progress.update(task, completed=looked_at, total=looked_at + page["remaining"])
    return sums


async def _pages(server: Server, what: str, bodies: Sequence[Document]) -> AsyncIterator[Document]:
    for body in bodies:
        cursor: str | None = None
        while True:
            page = await server.post(f"{_PATH}/{what}", body if cursor is None else {**body, "cursor": cursor})
            yield page
            cursor = page["nextCursor"]
            if cursor is None:
                break


def _asked(given: Document) -> dict[str, Any]:
    """The options as the API names them; those that were not given are None."""
    now = datetime.now(UTC)
    return {
        "kind": given["kind"],
        "eventId": str(given["event"]) if given["event"] else None,
        "type": given["event_type"],
        "userId": given["user"],
        "channel": given["channel"],
        "provider": given["provider"],
        "reason": given["reason"],
        "code": given["code"],
        "status": given["standing"],
        "from": moment(given["since"], now, "--since"),
        "to": moment(given["until"], now, "--until"),
    }


def _row(letter: Document) -> tuple[Any, ...]:
    aside = f" (aside: {letter['discardReason']})" if letter["discardedAt"] else ""
    said = " ".join(filter(None, (letter["errorCode"], letter["error"])))
    return (
        letter["id"],
        clock(letter["failedAt"]),
        letter["recipientId"],
        letter["channel"] or letter["kind"].lower(),
        status_text(letter["status"]),
        (letter["reason"] or "") + aside,
        said,
    )
