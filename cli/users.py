"""`tocsin users import`: people from a table into the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

import click
from rich.text import Text

from tocsin.cli.options import FAILED, with_server
from tocsin.cli.people_csv import BadLine, NotATable, Person, read_people
from tocsin.cli.screen import Screen
from tocsin.cli.server import Refused, Server, segment

_BATCH: Final = 200
_AT_ONCE: Final = 8
_SHOWN_BAD_LINES: Final = 50
_ABOUT_THE_LINE: Final = frozenset({400, 409, 413, 422})
"""What the server answers when a line is at fault; any other refusal would meet all lines alike and ends the import."""


@dataclass(slots=True)
class Import:
    """How an import went."""

    imported: int = 0
    bad: list[BadLine] = field(default_factory=list)


@click.group()
def users() -> None:
    """The people that Tocsin knows."""


@users.command("import")
@click.argument("csv", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@with_server
async def import_users(server: Server, screen: Screen, csv: Path) -> int | None:
    """Import people from a CSV file.

    The first line names the columns: id, and any of email, phone, name, locale, timezone, active. A line is the whole
    of what is known of a person: who is known already is replaced. Lines that cannot be imported are listed with their
    number and the reason; the others are imported.
    """
    total = _count_lines(csv)
    with screen.progress() as progress:
        task = progress.add_task("Importing", total=total)
        done = Import()
        async for person_count in _import(server, csv, done):
            progress.update(task, advance=person_count)
        progress.update(task, completed=total)
    _report(screen, done)
    return FAILED if done.bad else None


async def _import(server: Server, csv: Path, done: Import) -> AsyncIterator[int]:
    """Imports batch after batch into `done`; yields how many lines each had."""
    try:
        with csv.open(encoding="utf-8-sig", newline="") as lines:
            for batch in _batches(read_people(lines)):
                done.bad += [line for line in batch if isinstance(line, BadLine)]
                people = [line for line in batch if isinstance(line, Person)]
                refused = await _put(server, people)
                done.bad += refused
                done.imported += len(people) - len(refused)
                yield len(batch)
    except NotATable as error:
        raise click.ClickException(f"{csv} cannot be imported: {error}.") from error
    except UnicodeDecodeError as error:
        raise click.ClickException(
            f"{csv} is not UTF-8 after {done.imported} people were imported; save it as UTF-8 and import it again."
        ) from error


async def _put(server: Server, people: Iterable[Person]) -> list[BadLine]:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def put(person: Person) -> BadLine | None:
        async with gate:
            try:
                await server.put(f"/api/users/{segment(person.id)}", person.details)
            except Refused as refused:
                if refused.status not in _ABOUT_THE_LINE:
                    raise
                column = str(refused.document.get("field", "")).strip("/")
                return BadLine(person.line, column, str(refused.document.get("detail") or refused.message))
        return None

    return [line for line in await asyncio.gather(*map(put, people)) if line]


def _batches(lines: Iterator[Person | BadLine]) -> Iterator[list[Person | BadLine]]:
    while batch := list(islice(lines, _BATCH)):
        yield batch


def _count_lines(csv: Path) -> int:
    """About how many people a file has; the progress bar needs no more."""
    with csv.open("rb") as file:
        return max(0, sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b"")) - 1)


def _report(screen: Screen, done: Import) -> None:
    bad = sorted(done.bad, key=lambda line: line.line)
    screen.tell(Text.assemble((f"{done.imported}", "bold"), " people imported."))
    if bad:
        rows = [(line.line, line.column, line.reason) for line in bad[:_SHOWN_BAD_LINES]]
        screen.table(["line", "column", "reason"], rows, title=f"{len(bad)} lines were not imported")
        if len(bad) > _SHOWN_BAD_LINES:
            screen.tell(f"and {len(bad) - _SHOWN_BAD_LINES} more; --json lists them all", style="dim")
    listed = [{"line": line.line, "column": line.column or None, "reason": line.reason} for line in bad]
    screen.answer({"imported": done.imported, "bad": listed})
