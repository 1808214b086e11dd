"""`tocsin users import`: people from a table into the server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import click
from rich.text import Text

from tocsin.cli.csv_rows import BadLine
from tocsin.cli.importing import Importer, Sent, bad_of, import_table, put_batch, rejected, report_option, tell_bad
from tocsin.cli.members_csv import Membership
from tocsin.cli.options import FAILED, with_server
from tocsin.cli.people_csv import Person, read_people
from tocsin.cli.screen import Screen
from tocsin.cli.server import Server

_MEMBERS_AT_ONCE: Final = 5_000


@click.group()
def users() -> None:
    """The people that Tocsin knows."""


@users.command("import")
@click.argument("csv", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--make", "makes", is_flag=True, help="Make topics that there are not.")
@report_option
@with_server
async def import_users(server: Server, screen: Screen, csv: Path, report: Path | None, *, makes: bool) -> int | None:
    """Import people from a CSV file.

    The first line names the columns: id, and any of email, phone, name, locale, timezone, active, attributes (JSON) and
    attributes.<name>, with :number, :boolean or :list (a|b) behind the name where it is no text. A line is the whole of
    what is known of a person: who is known already is replaced. A column topics makes them a member as well:
    family:17=head/elder|region:west. Lines that cannot be imported are listed with their
    number and the reason; the others are imported.
    """

    async def send(people: Sequence[Person]) -> Sent:
        given = [{"id": person.id, **person.details} for person in people]
        answer = await put_batch(server, "/api/users", {"users": given})
        refused = {each["index"] for each in answer["rejected"]}
        members = [member for at, person in enumerate(people) if at not in refused for member in _members_of(person)]
        sent = Sent(Counter(imported=answer["stored"]), rejected(people, answer, {}))
        for first in range(0, len(members), _MEMBERS_AT_ONCE):
            sent.bad += await _join(server, members[first : first + _MEMBERS_AT_ONCE], makes=makes)
        return sent

    done = await import_table(screen, csv, read_people, Importer(send, report))
    screen.tell(Text.assemble((f"{done.counts['imported']}", "bold"), " people imported."))
    tell_bad(screen, done)
    screen.answer({"imported": done.counts["imported"], **bad_of(done)})
    return None if done.is_whole else FAILED


def _members_of(person: Person) -> list[Membership]:
    return [
        Membership(person.line, {"topic": topic, "userId": person.id, "roles": roles})
        for topic, roles in person.topics.items()
    ]


async def _join(server: Server, members: Sequence[Membership], *, makes: bool) -> list[BadLine]:
    body = {"members": [member.given for member in members], "makeTopics": makes}
    answer = await put_batch(server, "/api/memberships", body)
    bad = rejected(members, answer, {"topic": "topics", "roles": "topics"})
    return [replace(each, reason=f"The person is stored, but not made a member. {each.reason}") for each in bad]
