"""Measures each stage beside its own limit, in the same run (`make bench`).

    .venv/bin/python bench/run.py [--stages accept,persist,rebuild,idle] [--seconds 60] [--no-keep]

Prints a table and keeps the figures in bench/results. Only ratios travel from one machine to another. A figure
that misses what is wanted of it is named; it does not fail the run, for a busy machine misses much.
"""

from collections.abc import Callable
from typing import Final

import click
from rich.console import Console

from tocsin.bench import accept, idle, persist, read, rebuild
from tocsin.bench.report import Figure, keep, show

_STAGES: Final[dict[str, Callable[[float], list[Figure]]]] = {
    "accept": accept.measure,
    "persist": persist.measure,
    "read": read.measure,
    "rebuild": rebuild.measure,
    "idle": idle.measure,
}


@click.command()
@click.option("--stages", default=",".join(_STAGES), show_default=True, help="Which to measure, separated by commas.")
@click.option("--seconds", type=click.FloatRange(5), default=60.0, show_default=True, help="About how long each takes.")
@click.option("--keep/--no-keep", "kept", default=True, help="Whether to write the figures to bench/results.")
def main(*, stages: str, seconds: float, kept: bool) -> None:
    """Measures each stage beside its own limit."""
    names = [name.strip() for name in stages.split(",") if name.strip()]
    if unknown := [name for name in names if name not in _STAGES]:
        raise click.BadParameter(f"{', '.join(unknown)}; there are {', '.join(_STAGES)}", param_hint="--stages")
    figures: list[Figure] = []
    for name in names:
        with Console(stderr=True).status(f"measuring {name}, about {seconds:.0f} s"):
            figures += _STAGES[name](seconds)
    show(figures)
    if kept:
        print(f"kept in {keep(figures)}")
    if missed := [each.name for each in figures if not each.reached]:
        print(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
