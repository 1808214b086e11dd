"""Prints what a run found, and writes it as JSON."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.torture.check import Check
from tests.torture.evidence import Evidence
from tests.torture.ledger import Fault

_SHOWN = 5
_NEAR_MS = 15_000


def show(console: Console, figures: dict[str, Any], checks: Sequence[Check], evidence: Evidence) -> None:
    """The table of the run, and the stories of the first few that are wrong."""
    numbers = Table(title="the torture run", show_header=False)
    for name, value in figures.items():
        numbers.add_row(name, str(value))
    console.print(numbers)
    kinds = Counter(fault.kind for fault in evidence.ledger.faults)
    console.print("faults: " + ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())))
    table = Table(title="checks")
    for column in ("", "check", "looked at", "apart", "wrong"):
        table.add_column(column, justify="right" if column in {"looked at", "apart", "wrong"} else "left")
    for check in checks:
        mark = "[red]✘[/red]" if check.wrong else "[green]✔[/green]"
        table.add_row(mark, check.name, str(check.looked_at), str(len(check.apart)), str(len(check.wrong)))
    console.print(table)
    for check in checks:
        for about, what in check.wrong[:_SHOWN]:
            console.print(f"\n[red]✘ {check.name}[/red]\n  {about} {what}", highlight=False)
            if about:
                console.print(story(about, evidence), highlight=False, markup=False)


def story(about: str, evidence: Evidence) -> str:
    """What is known of a delivery or an event, in the order of time."""
    lines: list[tuple[int, str]] = []
    delivery = evidence.deliveries.get(about)
    accepted = evidence.ledger.accepted.get(delivery.event if delivery else about)
    head = ""
    if delivery:
        head = f"  {delivery.channel} step {delivery.step} of {delivery.notification}: {delivery.status}\n"
        lines += [(fact["at"], f"{place} {json.dumps(fact)}") for place, fact in delivery.history.items()]
        for name, times in (("read", evidence.ledger.reads), ("cancel", evidence.ledger.cancels)):
            at = times.get(delivery.notification if name == "read" else delivery.event)
            lines += [(at, f"{name} answered")] if at else []
    lines += [(call.at_ms, f"provider: {call}") for call in evidence.calls_of(about)]
    lines += [(accepted.answered_ms, f"accepted: {accepted}")] if accepted else []
    times = [at for at, _ in lines]
    if times:
        lines += [
            (fault.at_ms, f"fault: {fault.kind} {fault.target} until {fault.until_ms}")
            for fault in evidence.ledger.faults
            if fault.until_ms >= min(times) - _NEAR_MS and fault.at_ms <= max(times) + _NEAR_MS
        ]
    return head + "\n".join(f"    {at} {what}" for at, what in sorted(lines))


def write(path: Path, figures: dict[str, Any], checks: Sequence[Check], faults: Sequence[Fault]) -> None:
    """The same as JSON."""
    told = {
        **figures,
        "checks": [
            {"name": c.name, "group": c.group, "lookedAt": c.looked_at, "wrong": c.wrong, "apart": c.apart}
            for c in checks
        ],
        "faults": [asdict(fault) for fault in faults],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told, indent=1))
