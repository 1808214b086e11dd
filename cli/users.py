"""`tocsin users import`: people from a table into the server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click
from rich.text import Text

from tocsin.cli.importing import Importer, Sent, bad_of, import_table, put_batch, rejected, report_option, tell_bad
from tocsin.cli.options import FAILED, with_server
from tocsin.cli.people_csv import Person, read_people
from tocsin.cli.screen import Screen
from tocsin.cli.server import Server


@click.group()
def users() -> None:
    """The people that Tocsin knows."""


@users.command("import")
@click.argument("csv", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@report_option
@with_server
async def import_users(server: Server, screen: Screen, csv: Path, report: Path | None) -> int | None:
    """Import people from a CSV file.

    The first line names the columns: id, and any of email, phone, name, locale, timezone, active, attributes (JSON) and
    attributes.<name>, with :number, :boolean or :list (a|b) behind the name where it is no text. A line is the whole of
    what is known of a person: who is known already is replaced. Lines that cannot be imported are listed with their
    number and the reason; the others are imported.
    """

    async def send(people: Sequence[Person]) -> Sent:
        given = [{"id": person.id, **person.details} for person in people]
        answer = await put_batch(server, "/api/users", {"users": given})
        return Sent(Counter(imported=answer["stored"]), rejected(people, answer, {}))

    done = await import_table(screen, csv, read_people, Importer(send, report))
    screen.tell(Text.assemble((f"{done.counts['imported']}", "bold"), " people imported."))
    tell_bad(screen, done)
    screen.answer({"imported": done.counts["imported"], **bad_of(done)})
    return FAILED if done.bad_count else None
