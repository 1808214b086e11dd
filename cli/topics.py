"""`tocsin topics`: groups that events can be posted to, and who belongs to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import click

from tocsin.cli.csv_rows import BadLine
from tocsin.cli.importing import Importer, Sent, bad_of, import_table, put_batch, rejected, report_option, tell_bad
from tocsin.cli.members_csv import Membership, read_members
from tocsin.cli.options import FAILED, with_server
from tocsin.cli.screen import Screen, plain
from tocsin.cli.server import Server, segment

_COUNTED: Final = ("added", "changed", "unchanged", "topicsMade", "unknown")
_limit_option: Final = click.option(
    "--limit", type=click.IntRange(1, 100_000), default=200, show_default=True, help="How many to list."
)


@click.group()
def topics() -> None:
    """Groups of people, such as families and regions."""


@topics.command("list")
@click.option("--kind", help="Those of a kind.")
@_limit_option
@with_server
async def list_topics(server: Server, screen: Screen, kind: str | None, limit: int) -> None:
    """List topics by key."""
    found = [topic async for topic in server.pages("/api/topics", most=limit, kind=kind)]
    screen.table(["topic", "kind", "name"], [(each["key"], each["kind"], each["name"]) for each in found])
    screen.answer({"data": found})


@topics.command()
@click.argument("topic")
@click.option("--kind", default="group", show_default=True, help="What sort of group it is, such as family.")
@click.option("--name", help="What people call it.")
@with_server
async def make(server: Server, screen: Screen, topic: str, kind: str, name: str | None) -> None:
    """Make a topic, or give it another kind and name."""
    body = {"kind": kind} | ({"name": name} if name else {})
    made = await server.put(f"/api/topics/{segment(topic)}", body)
    screen.tell(f"{plain(made['key'])} is a {plain(made['kind'])}.")
    screen.answer(made)


@topics.command()
@click.argument("topic")
@with_server
async def remove(server: Server, screen: Screen, topic: str) -> None:
    """Remove a topic with its members."""
    await server.delete(f"/api/topics/{segment(topic)}")
    screen.tell(f"{plain(topic)} is no topic any more.")
    screen.answer({"removed": topic})


@topics.command()
@click.argument("topic")
@click.option("--role", help="Those with a role.")
@_limit_option
@with_server
async def members(server: Server, screen: Screen, topic: str, role: str | None, limit: int) -> None:
    """List who belongs to a topic, and as what."""
    path = f"/api/topics/{segment(topic)}"
    known = await server.get(path)
    found = [member async for member in server.pages(f"{path}/members", most=limit, role=role)]
    screen.tell(f"{plain(known['key'])}, a {plain(known['kind'])} of {known['members']}")
    rows = [(each["userId"], ", ".join(each["roles"]), "" if each["known"] else "no such user") for each in found]
    screen.table(["user", "roles", ""], rows)
    screen.answer({"topic": known, "data": found})


@topics.command("import")
@click.argument("csv", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--topic", help="The topic of all lines, where no column says it.")
@click.option("--make", "makes", is_flag=True, help="Make topics that there are not, of the kind in the column kind.")
@report_option
@with_server
async def import_members(
    server: Server, screen: Screen, csv: Path, topic: str | None, report: Path | None, *, makes: bool
) -> int | None:
    """Import members from a CSV file.

    The first line names the columns: topic, user, and if you like roles (head|elder) and kind. Who is a member already
    gets the roles of the line. Lines that cannot be imported are listed with their number and the reason; the others
    are imported. Importing again does no harm.
    """

    async def send(lines: Sequence[Membership]) -> Sent:
        body = {"members": [line.given for line in lines], "makeTopics": makes}
        answer = await put_batch(server, "/api/memberships", body)
        return Sent(Counter({name: answer[name] for name in _COUNTED}), rejected(lines, answer, {"userId": "user"}))

    def read(lines: Iterable[str]) -> Iterator[Membership | BadLine]:
        return read_members(lines, topic)

    done = await import_table(screen, csv, read, Importer(send, report))
    counts = {name: done.counts[name] for name in _COUNTED}
    screen.tell(f"{counts['added']} added, {counts['changed']} changed, {counts['unchanged']} as they were.")
    if counts["unknown"]:
        screen.tell(f"{counts['unknown']} are no known users; they are not reached until they are.", style="yellow")
    tell_bad(screen, done)
    screen.answer({**counts, **bad_of(done)})
    return None if done.is_whole else FAILED
