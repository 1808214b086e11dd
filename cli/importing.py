"""What imports of tables have in common: lines are sent by the batch, several batches at a time, but never two at once
that say something of the same; what is wrong is listed. One that breaks off says how far it came.

Memory stays the same however long the file is: of bad lines some are kept to be shown, all go to --report.
"""

from __future__ import annotations

import asyncio
import csv
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Generic, Protocol, Self, TypeVar

import click
from rich.progress import TaskID

from tocsin.cli.csv_rows import BadLine, NotATable
from tocsin.cli.screen import Screen
from tocsin.cli.server import Refused, Server

_BATCH: Final = 1_000
_AT_ONCE: Final = 3
_KEPT: Final = 1_000
"""How many bad lines the answer for programs names."""
_SHOWN: Final = 50
_TOO_LARGE: Final = 413
_MENDS: Final = {"unknown_topic": "Mend its spelling, or import with --make."}
"""What to do here about what the server finds wrong, where it knows of the API alone."""

report_option: Final = click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A CSV file for all bad lines: line, column, reason, mend.",
)


class Line(Protocol):
    """A line that can be imported."""

    @property
    def line(self) -> int: ...

    @property
    def key(self) -> Hashable:
        """What it says something of: of two lines the last one holds."""


_Line = TypeVar("_Line", bound=Line)


@dataclass(slots=True)
class Sent:
    """What the server said of a batch: counts by name, and the bad lines."""

    counts: Counter[str]
    bad: list[BadLine]


@dataclass(slots=True)
class Done:
    """How an import went: counts by name, the first bad lines and how many there were. Where it broke off: why, and
    the first line of which it is not known that it was done; all before it are."""

    counts: Counter[str] = field(default_factory=Counter)
    bad: list[BadLine] = field(default_factory=list)
    bad_count: int = 0
    broke_off: str = ""
    undone: int = 2

    @property
    def is_whole(self) -> bool:
        """Whether every line was imported."""
        return not self.bad_count and not self.broke_off


class Importer(Generic[_Line]):
    """Sends lines by `send` and keeps what became of them."""

    def __init__(self, send: Callable[[Sequence[_Line]], Awaitable[Sent]], report: Path | None) -> None:
        self._send = send
        self._path = report
        self._report: IO[str] | None = None
        self._running: dict[asyncio.Task[None], frozenset[Hashable]] = {}
        self._failed: list[int] = []
        self.done = Done()

    def __enter__(self) -> Self:
        if self._path:
            self._report = self._path.open("w", encoding="utf-8", newline="")
            csv.writer(self._report).writerow(["line", "column", "reason", "mend"])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._report:
            self._report.close()

    async def run(self, lines: Iterator[_Line | BadLine], advance: Callable[[int], None]) -> Done:
        """Imports all lines; at most a few batches are under way, so that the file is read as fast as the server takes
        it. Raises what a batch did, once the others that were under way are done, and CancelledError at once."""
        try:
            while batch := list(islice(lines, _BATCH)):
                await self._begin(batch, advance)
            while self._running:
                await self._finish_one()
        except Exception:
            await asyncio.gather(*self._running, return_exceptions=True)
            raise
        finally:
            for task in self._running:
                task.cancel()
            self.done.undone = min(self._failed, default=self.done.undone)
        return self.done

    async def _begin(self, batch: Sequence[_Line | BadLine], advance: Callable[[int], None]) -> None:
        keys = frozenset(line.key for line in batch if not isinstance(line, BadLine))
        while len(self._running) >= _AT_ONCE or any(keys & others for others in self._running.values()):
            await self._finish_one()
        self._running[asyncio.create_task(self._import(batch, advance))] = keys
        self.done.undone = batch[-1].line + 1

    async def _finish_one(self) -> None:
        done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            del self._running[task]
            task.result()

    async def _import(self, batch: Sequence[_Line | BadLine], advance: Callable[[int], None]) -> None:
        self._failed.append(batch[0].line)
        await self._import_whole(batch)
        self._failed.remove(batch[0].line)
        advance(len(batch))

    async def _import_whole(self, batch: Sequence[_Line | BadLine]) -> None:
        good = [line for line in batch if not isinstance(line, BadLine)]
        bad = [line for line in batch if isinstance(line, BadLine)]
        for sent in await self._sent(good):
            self.done.counts.update(sent.counts)
            bad += sent.bad
        self._keep(sorted(bad, key=lambda line: line.line))

    async def _sent(self, lines: Sequence[_Line]) -> list[Sent]:
        """What the server said of lines; a batch that is too large for it goes in two halves."""
        if not lines:
            return []
        try:
            return [await self._send(lines)]
        except Refused as refused:
            if refused.status != _TOO_LARGE or len(lines) == 1:
                raise
        middle = len(lines) // 2
        return [*await self._sent(lines[:middle]), *await self._sent(lines[middle:])]

    def _keep(self, bad: Iterable[BadLine]) -> None:
        for line in bad:
            self.done.bad_count += 1
            if len(self.done.bad) < _KEPT:
                self.done.bad.append(line)
            if self._report:
                csv.writer(self._report).writerow([line.line, line.column, line.reason, line.mend])


async def import_table(
    screen: Screen,
    table: Path,
    read: Callable[[Iterable[str]], Iterator[_Line | BadLine]],
    importer: Importer[_Line],
) -> Done:
    """Imports a file with progress; one that breaks off is told by what it answers. Raises ClickException where nothing
    was imported."""
    total = _count_lines(table)
    with screen.progress() as progress, importer:
        task: TaskID = progress.add_task("Importing", total=total)
        try:
            with table.open(encoding="utf-8-sig", newline="") as lines:
                await importer.run(read(lines), lambda count: progress.update(task, advance=count))
            progress.update(task, completed=total)
        except NotATable as error:
            raise click.ClickException(f"{table} cannot be imported: {error}.") from error
        except UnicodeDecodeError as error:
            told = f"{table} is not UTF-8; save it as UTF-8 and import it again."
            _break_off(importer.done, click.ClickException(told), error)
        except click.ClickException as error:
            _break_off(importer.done, error, error)
        except asyncio.CancelledError:
            importer.done.broke_off = "It was interrupted."
    return importer.done


def _break_off(done: Done, told: click.ClickException, cause: Exception) -> None:
    if not done.counts and not done.bad_count:
        raise told from cause
    done.broke_off = told.message


def tell_bad(screen: Screen, done: Done) -> None:
    """The lines that were not imported, for people."""
    if done.broke_off:
        told = f"It broke off: {done.broke_off} All lines before line {done.undone} are done; import it again, "
        screen.tell(f"{told}which does no harm.", style="red")
    if not done.bad_count:
        return
    rows = [(line.line, line.column, line.reason, line.mend) for line in done.bad[:_SHOWN]]
    screen.table(["line", "column", "reason", "mend"], rows, title=f"{done.bad_count} lines were not imported")
    if done.bad_count > _SHOWN:
        screen.tell(f"and {done.bad_count - _SHOWN} more; --report writes them all to a file", style="dim")


def bad_of(done: Done) -> dict[str, Any]:
    """The same for programs."""
    listed = [
        {"line": line.line, "column": line.column or None, "reason": line.reason, "mend": line.mend or None}
        for line in done.bad
    ]
    broke_off = {"brokeOff": {"line": done.undone, "reason": done.broke_off}} if done.broke_off else {}
    return {"badCount": done.bad_count, "bad": listed, **broke_off}


async def put_batch(server: Server, path: str, body: dict[str, Any]) -> Any:
    """The answer to a batch, which may take the server a while."""
    return await server.post(path, body, limit_s=60)


def rejected(lines: Sequence[Line], answer: Any, columns: dict[str, str]) -> list[BadLine]:
    """The lines that the server left out; `columns` are the names of its fields in the table."""
    found = []
    for each in answer["rejected"]:
        named = str(each["field"]).strip("/").split("/")[0]
        column, mend = columns.get(named, named), _MENDS.get(each["code"], each["mend"])
        found.append(BadLine(lines[each["index"]].line, column, each["detail"], mend))
    return found


def _count_lines(table: Path) -> int:
    """About how many lines a file has; the progress bar needs no more."""
    with table.open("rb") as file:
        return max(0, sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b"")) - 1)
