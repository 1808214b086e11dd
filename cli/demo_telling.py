"""How the demo is told: line by line in the order of time, each line read back from a journey or from the outbox."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from rich.text import Text

from tocsin.cli.demo_checks import Check, Told
from tocsin.cli.demo_scenes import PEOPLE, SCENES, Scene
from tocsin.cli.journey import CHANNEL_NAMES, Document, about, identity, milliseconds, offset, padded
from tocsin.cli.screen import Screen, plain
from tocsin.domain.delivery import Status

# What merely leads to something else would hide the story; `tocsin status` shows it.
_PASSING: Final = frozenset({"ACCEPTED", "LISTED", Status.QUEUED, Status.SENDING})
_ARRIVED: Final = "ARRIVED"
_LONGEST_QUOTE: Final = 60
_STYLES: Final = {"A": "cyan", "B": "magenta", "C": "yellow", "D": "red", "E": "blue"}

Seen = Mapping[str, tuple[Document | None, Sequence[Document]]]
"""By the letter of a scene: the journey of its notification, None while it is not known, and its messages."""


class Teller:
    """Tells each thing once."""

    def __init__(self, screen: Screen, url: str) -> None:
        self._screen = screen
        self._url = url
        self._told: set[tuple[Any, ...]] = set()
        self._start_ms: int | None = None

    def begin(self) -> None:
        """Who takes part, and what is posted."""
        tell = self._screen.tell
        tell(Text.assemble(("Tocsin demo", "bold"), f"  {self._url}  sandbox: nothing leaves this machine"))
        tell()
        tell(f"{', '.join(person.name for person in PEOPLE)}: each has an email address, a number and a device.")
        tell()
        for scene in SCENES:
            tell(Text.assemble("  ", _letter(scene.letter), f"  {scene.heading}", (f"  to {scene.person.name}", "dim")))
        tell()

    def tell(self, seen: Seen) -> None:
        """What is new since the last time, in the order in which it happened."""
        new = [line for scene in SCENES for line in self._new_lines(scene, *seen[scene.letter])]
        for at_ms, line in sorted(new, key=lambda each: each[0]):
            if self._start_ms is None:
                self._start_ms = at_ms
            self._screen.tell(line)

    def end(self, told: Sequence[Told], checks: Sequence[Check]) -> None:
        """What was checked, and where to look further."""
        tell = self._screen.tell
        tell()
        tell("Checked against journeys and outbox", "bold")
        for scene in SCENES:
            tell(Text.assemble("  ", _letter(scene.letter), f"  {scene.heading}"))
            for check in (each for each in checks if each.scene == scene.letter):
                tell(_check_line(check))
        wrong = sum(not check.holds for check in checks)
        tell()
        if wrong:
            tell(f"{wrong} of {len(checks)} do not hold.", "bold red")
        else:
            tell(f"All {len(checks)} hold.", "bold green")
        tell(f"See each step at {self._url}/, or with `tocsin status`:", "dim")
        for each in told:
            tell(f"  {each.scene.letter}  {each.journey['notification']['id']}", "dim")
        self._screen.answer(_document(told, checks))

    def _new_lines(
        self, scene: Scene, journey: Document | None, outbox: Sequence[Document]
    ) -> Iterable[tuple[int, Text]]:
        if journey is None:
            return
        if self._start_ms is None:
            self._start_ms = milliseconds(journey["notification"]["createdAt"])
        for step in journey["journey"]:
            if step["what"] not in _PASSING and self._is_new((scene.letter, *identity(step))):
                detail = _detail(scene, step, journey)
                yield milliseconds(step["at"]), self._line(scene, step["at"], step["channel"], step["what"], detail)
        for entry in outbox:
            if self._is_new((scene.letter, "outbox", entry["id"])):
                yield milliseconds(entry["receivedAt"]), self._message_line(scene, entry)

    def _is_new(self, what: tuple[Any, ...]) -> bool:
        if what in self._told:
            return False
        self._told.add(what)
        return True

    def _message_line(self, scene: Scene, entry: Document) -> Text:
        words = " ".join((entry["text"] or entry["subject"] or "").split())
        quote = words if len(words) <= _LONGEST_QUOTE else words[: _LONGEST_QUOTE - 1] + "…"
        return self._line(scene, entry["receivedAt"], entry["channel"], _ARRIVED, f"“{quote}”")

    def _line(self, scene: Scene, at: str, channel: str | None, what: str, detail: str) -> Text:
        assert self._start_ms is not None  # noqa: S101  # set before any line is made
        line = Text.assemble(
            (f"{offset(at, self._start_ms):>9}  ", "dim"),
            _letter(scene.letter),
            f"  {scene.person.name:<7} {CHANNEL_NAMES.get(channel or '', ''):<7} ",
            padded(what, 10),
            f" {plain(detail)}",
        )
        line.rstrip()
        return line


def _detail(scene: Scene, step: Document, journey: Document) -> str:
    if step["what"] == "READ":
        return f"by {scene.person.name}, with a token of their own"
    if step["deliveryId"] is None:
        return "the whole of it, by its sender"
    if step["what"] == Status.SCHEDULED:
        start = milliseconds(journey["deliveries"][0]["scheduledFor"])
        due = next(each["scheduledFor"] for each in journey["deliveries"] if each["id"] == step["deliveryId"])
        return f"for {offset(due, start)} after its start"
    return about({**step, "providerId": None})


def _check_line(check: Check) -> Text:
    mark = ("ok      ", "green") if check.holds else ("MISMATCH", "bold red")
    found = f", but found: {plain(check.found)}" if check.found else ""
    return Text.assemble("     ", mark, f"  {check.claim}{found}")


def _letter(letter: str) -> Text:
    return Text(letter, style=f"bold {_STYLES[letter]}")


def _document(told: Sequence[Told], checks: Sequence[Check]) -> dict[str, Any]:
    return {
        "ok": all(check.holds for check in checks),
        "checks": [
            {"scene": check.scene, "claim": check.claim, "holds": check.holds, "found": check.found or None}
            for check in checks
        ],
        "scenes": [
            {
                "scene": each.scene.letter,
                "heading": each.scene.heading,
                "event": each.event,
                "journey": each.journey,
                "outbox": list(each.outbox),
            }
            for each in told
        ],
    }
