"""What a run is asked for, by environment."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Options:
    """`seed` repeats the schedule of faults and what the driver and the providers draw, not the machine's timing."""

    seed: int
    seconds: float
    """How long events are posted and faults come; the wait for quiet comes on top."""
    rate: float
    """Deliveries a second that the driver asks for, those of the inbox among them."""
    fault_every_s: float
    """The mean time between two faults."""
    without: tuple[str, ...]
    """Kinds of faults that are left out."""
    quiet_s: float
    """How long the end of all work is waited for."""
    report: Path | None
    folder: Path | None
    """Where data and logs go; not set: a temporary folder, which is kept when something was wrong."""


def options_of(environ: Mapping[str, str]) -> Options:
    """The options in `environ`: TORTURE_SEED and the others of docs/reliability.md."""
    seconds = float(environ.get("TORTURE_SECONDS", "1800"))
    report, folder = environ.get("TORTURE_REPORT"), environ.get("TORTURE_FOLDER")
    return Options(
        seed=int(environ.get("TORTURE_SEED") or random.randrange(1_000_000)),
        seconds=seconds,
        rate=float(environ.get("TORTURE_RATE", "62")),
        fault_every_s=float(environ.get("TORTURE_FAULT_EVERY", "7" if seconds > 300 else "4")),
        without=tuple(filter(None, environ.get("TORTURE_WITHOUT", "").split(","))),
        quiet_s=float(environ.get("TORTURE_QUIET", "300" if seconds > 300 else "60")),
        report=Path(report) if report else None,
        folder=Path(folder) if folder else None,
    )
