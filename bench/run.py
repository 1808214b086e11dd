"""Measures each stage beside its own limit, in the same run (`make bench`).

    .venv/bin/python bench/run.py [--stages accept,persist,…] [--seconds 60] [--people 10000] [--no-keep]

Prints a table as each stage ends, keeps the figures in bench/results, and remakes the tables and charts of
docs/performance.md from what is kept there. Only ratios travel from one machine to another. A figure that misses what
is wanted of it is named; it does not fail the run, for a busy machine misses much.
"""

import sys
import time
import traceback
from collections.abc import Callable
from typing import Final

import click

from tocsin.bench import accept, broadcast, fan_out, idle, index, page, peers, persist, read, rebuild, scale, sends
from tocsin.bench.report import Figure, keep, show
from tocsin.bench.servers import stop_with_us

Measure = Callable[[float, int | None], list[Figure]]

STAGES: Final[dict[str, Measure]] = {
    "accept": lambda seconds, _: accept.measure(seconds),
    "fan_out": fan_out.measure,
    "persist": lambda seconds, _: persist.measure(seconds),
    "send_email": lambda seconds, people: sends.measure("EMAIL", seconds, people),
    "send_sms": lambda seconds, people: sends.measure("SMS", seconds, people),
    "send_push": lambda seconds, people: sends.measure("PUSH", seconds, people),
    "peers": peers.measure,
    "index": index.measure,
    "broadcast": lambda _, people: broadcast.measure_with_mail(people),
    "broadcast_million": lambda _, people: broadcast.measure_in_app(people),
    "read": lambda seconds, _: read.measure(seconds),
    "rebuild": lambda seconds, _: rebuild.measure(seconds),
    "idle": lambda seconds, _: idle.measure(seconds),
    "scale": scale.measure,
}


@click.command()
@click.option("--stages", default=",".join(STAGES), show_default=True, help="Which to measure, separated by commas.")
@click.option("--seconds", type=click.FloatRange(5), default=60.0, show_default=True, help="About how long each takes.")
@click.option("--people", type=click.IntRange(100), help="Measures with so many people or items instead, to try it.")
@click.option("--keep/--no-keep", "kept", default=True, help="Whether to write the figures to bench/results.")
def main(*, stages: str, seconds: float, people: int | None, kept: bool) -> None:
    """Measures each stage beside its own limit."""
    names = [name.strip() for name in stages.split(",") if name.strip()]
    if unknown := [name for name in names if name not in STAGES]:
        raise click.BadParameter(f"{', '.join(unknown)}; there are {', '.join(STAGES)}", param_hint="--stages")
    stop_with_us()
    figures: list[Figure] = []
    began_s, failed = time.time(), []
    for name in names:
        try:
            figures += _measured(name, seconds, people)
        except Exception:  # the others are measured all the same
            traceback.print_exc()
            failed.append(name)
        if kept and figures:
            # After each stage, so that a run that breaks off loses nothing of what it has.
            path = keep(figures, began_s, people)
    if kept and figures:
        print(f"kept in {path}")
        if people is None:
            page.remake()
    if missed := [each.name for each in figures if not each.reached]:
        print(f"missed: {', '.join(missed)}")
    if failed:
        sys.exit(f"could not be measured: {', '.join(failed)}")


def _measured(name: str, seconds: float, people: int | None) -> list[Figure]:
    print(f"measuring {name}…", flush=True)
    began_s = time.monotonic()
    found = STAGES[name](seconds, people)
    show(found, f"{name}, {time.monotonic() - began_s:.0f} s")
    return found


if __name__ == "__main__":
    main()
