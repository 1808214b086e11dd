"""`tocsin send`: one message by hand, to try a channel out or to reach somebody now; followed until it is final."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from contextlib import aclosing, suppress
from typing import Any, Final

import click
from rich.text import Text

from tocsin.cli.journey import Document, follow, is_final, milliseconds, step_line
from tocsin.cli.options import FAILED, with_server
from tocsin.cli.screen import Screen, plain
from tocsin.cli.server import Server
from tocsin.cli.told import progress_line
from tocsin.domain.addresses import USER_ID, normal_email, normal_phone
from tocsin.domain.delivery import Channel, Status
from tocsin.domain.errors import InvalidInput
from tocsin.domain.event import EventStatus
from tocsin.domain.plan import Priority, Strategy

_GONE_OUT: Final = frozenset({Status.SENT, Status.DELIVERED})
_AS_PLANNED: Final = _GONE_OUT | {Status.SUPPRESSED, Status.CANCELLED}
_RESULTS: Final = {
    "ACCEPTED": "stored in ",
    "UNCHANGED": "which says the same and has not gone out, is in ",
    "REPLACED": "which replaces the one with its key, stored in ",
}
_DEFAULT_TYPE: Final = "tocsin.message"


@click.command()
@click.option("--to", "to", multiple=True, help="A user id, an email address or a +number; repeatable.")
@click.option("--topic", "topics", multiple=True, help="Everybody in a topic; KEY=head,elder: those roles; repeatable.")
@click.option("--segment", help='Everybody whose attributes fit, as JSON: \'{"age": {"gte": 18}}\'.')
@click.option("--subscribers", is_flag=True, help="Everybody who subscribed to the type.")
@click.option("--everyone", is_flag=True, help="Everybody.")
@click.option("--message", "-m", required=True, help="The text.")
@click.option("--title", "-t", help="The title; the subject of a mail.")
@click.option(
    "--channel",
    "channels",
    multiple=True,
    type=click.Choice(list(Channel), case_sensitive=False),
    help="Repeatable. By default EMAIL to an address, SMS to a number, and what its type says to a user.",
)
@click.option("--priority", type=click.Choice(list(Priority), case_sensitive=False))
@click.option(
    "--strategy",
    type=click.Choice(list(Strategy), case_sensitive=False),
    default=Strategy.BROADCAST,
    show_default=True,
    help="ESCALATION goes from channel to channel while it stays unread.",
)
@click.option("--policy", help="The escalation policy.")
@click.option("--type", "event_type", default=_DEFAULT_TYPE, show_default=True, help="The event's type.")
@click.option("--event-key", help="What it is about: one live event has this key, and this replaces what says else.")
@click.option("--signature", help="What tells it from another with its key; by default what it says.")
@click.option(
    "--wait", "wait_s", type=click.FloatRange(0), default=60.0, show_default=True, help="Seconds to follow it."
)
@with_server
async def send(server: Server, screen: Screen, **given: Any) -> int | None:
    """Send a message and follow it until it is final.

    Ends with 1 when it did not go out: somebody is not known, a delivery failed, or it was not final in time.
    """
    wait_s = given.pop("wait_s")
    audience = audience_of(**{name: given.pop(name) for name in ("topics", "segment", "subscribers", "everyone")})
    if not given["to"] and not audience:
        raise click.UsageError("name somebody: --to, --topic, --segment, --subscribers or --everyone")
    asked = {"key": given.pop("event_key"), "signature": given.pop("signature")}
    named = {name: value for name, value in asked.items() if value}
    posted = await server.post("/api/notifications", posting(**given) | audience | named)
    result = _RESULTS[posted["result"]]
    screen.tell(Text.assemble("Event ", (posted["id"], "bold"), f", {result}{posted['durability']}"))
    for unknown in posted["unknownIds"]:
        screen.tell(f"no such user: {plain(unknown)}", style="red")
    for rejected in posted["rejectedRecipients"]:
        screen.tell(f"left out: {plain(rejected['id'])}, {rejected['field']}: {rejected['code']}", style="red")
    if audience:
        return await _follow_event(server, screen, posted, wait_s)
    journeys = await _follow_all(server, screen, posted, wait_s) if wait_s else []
    screen.answer({"posted": posted, "journeys": journeys})
    complete = not posted["unknownIds"] and not posted["rejectedRecipients"]
    return None if complete and all(map(_went_out, journeys)) else FAILED


def audience_of(*, topics: Sequence[str], segment: str | None, subscribers: bool, everyone: bool) -> dict[str, Any]:
    """The part of the request that names nobody. Raises UsageError for a segment that is no JSON."""
    try:
        wanted = json.loads(segment) if segment else None
    except ValueError as error:
        raise click.BadParameter(f"it is not JSON: {error}", param_hint="--segment") from error
    chosen = (topic.partition("=") for topic in topics)
    body = {
        "topics": [{"key": key, "roles": roles.split(",") if roles else []} for key, _, roles in chosen] or None,
        "segment": wanted,
        "subscribers": subscribers or None,
        "everyone": everyone or None,
    }
    return {name: value for name, value in body.items() if value is not None}


async def _follow_event(server: Server, screen: Screen, posted: Document, wait_s: float) -> int | None:
    """Follows an event by its counts, for there may be any number of people."""
    last: Document | None = None
    if wait_s:
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s), aclosing(server.stream(f"/api/events/{posted['id']}/stream")) as stream:
                async for told in stream:
                    last = told
                    screen.tell(progress_line(told))
                    if told["final"]:
                        break
        if last is None or not last["final"]:
            screen.tell(f"It is not final after {wait_s:g} s: tocsin status {posted['id']} --watch", style="yellow")
    screen.answer({"posted": posted, "event": last})
    if last is None:
        return FAILED if wait_s else None
    complete = last["final"] and last["status"] == EventStatus.COMPLETED
    return None if complete and not (last["counts"]["failed"] or last["counts"]["uncertain"]) else FAILED


def posting(
    *,
    to: Sequence[str],
    message: str,
    title: str | None,
    channels: Sequence[str],
    priority: str | None,
    strategy: str,
    policy: str | None,
    event_type: str,
) -> dict[str, Any]:
    """The body of the request. Raises UsageError for what is neither user id, address nor number."""
    people = [_recipient(each) for each in to]
    chosen = list(channels) or _channels_for(people)
    body = {
        "type": event_type,
        "message": message,
        "title": title,
        "recipientIds": [person["id"] for person in people if len(person) == 1] or None,
        "recipients": [person for person in people if len(person) > 1] or None,
        "channels": chosen or None,
        "notificationPriority": priority,
        "deliveryStrategy": strategy,
        "policy": policy,
    }
    return {name: value for name, value in body.items() if value is not None}


def _recipient(to: str) -> dict[str, str]:
    """A user, or a person who is reached at an address for this once."""
    if to.startswith("+"):
        try:
            phone = normal_phone(to)
        except InvalidInput as error:
            raise click.BadParameter(f"{plain(to)}: {error.detail}", param_hint="--to") from error
        return {"id": _name_of(phone), "phone": phone}
    try:
        email = normal_email(to)
    except InvalidInput as error:
        if not USER_ID.fullmatch(to):
            told = f"{plain(to)} is no user id, no email address and no number with + and country code"
            raise click.BadParameter(told, param_hint="--to") from error
        return {"id": to}
    return {"id": _name_of(email), "email": email}


def _name_of(address: str) -> str:
    """A user id for somebody of whom only the address is known, always the same."""
    return address if USER_ID.fullmatch(address) else "to-" + hashlib.sha256(address.encode()).hexdigest()[:32]


def _channels_for(people: Sequence[dict[str, str]]) -> list[Channel]:
    if any(len(person) == 1 for person in people):
        return []
    wanted = {Channel.EMAIL if "email" in person else Channel.SMS for person in people}
    return sorted(wanted)


async def _follow_all(server: Server, screen: Screen, posted: Document, wait_s: float) -> list[Document | None]:
    several = len(posted["notifications"]) > 1

    async def follow_one(addressed: Document) -> Document | None:
        def tell(journey: Document, step: Document) -> None:
            line = step_line(step, milliseconds(journey["notification"]["createdAt"]))
            screen.tell(Text.assemble(f"{plain(addressed['recipientId']):<20} ", line) if several else line)

        journey = await follow(server, addressed["id"], limit_s=wait_s, tell=tell)
        if journey is None or not is_final(journey["deliveries"]):
            screen.tell(f"It is not final after {wait_s:g} s: tocsin status {addressed['id']}", style="yellow")
        return journey

    return list(await asyncio.gather(*map(follow_one, posted["notifications"])))


def _went_out(journey: Document | None) -> bool:
    statuses = {Status(each["status"]) for each in journey["deliveries"]} if journey else set()
    return statuses <= _AS_PLANNED and bool(statuses & _GONE_OUT)
