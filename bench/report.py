"""What was measured, for people as a table and for programs as JSON."""

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import psutil
from rich.console import Console
from rich.table import Table

from tocsin.storage import embedded_postgres, embedded_redis

_ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = _ROOT / "bench" / "results"
_LOAD: Final = round(os.getloadavg()[0], 2)
"""Taken as this begins: what else the machine did."""
_PACKAGES: Final = ("starlette", "uvicorn", "uvloop", "pydantic", "hiredis", "psycopg2-binary", "dramatiq", "peewee")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure beside its limit. `least` and `most` bound the ratio of ours to the limit; where neither is
    given the figure is shown for comparison only."""

    name: str
    ours: float
    limit: float
    unit: str
    least: float | None = None
    most: float | None = None
    rounds: dict[str, list[float]] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    series: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """Curves by name: what was seen at how many seconds."""

    @property
    def ratio(self) -> float:
        return self.ours / self.limit if self.limit else 0.0

    @property
    def reach(self) -> str:
        """What the ratio is wanted to be."""
        if self.least is not None:
            return f"≥ {self.least:g}"
        return f"≤ {self.most:g}" if self.most is not None else ""

    @property
    def reached(self) -> bool:
        return (self.least is None or self.ratio >= self.least) and (self.most is None or self.ratio <= self.most)

    def as_json(self) -> dict[str, Any]:
        """As it stands in bench/results."""
        return {
            "name": self.name,
            "ours": round(self.ours, 4),
            "limit": round(self.limit, 4),
            "ratio": round(self.ratio, 4),
            "unit": self.unit,
            "reach": self.reach,
            "reached": self.reached,
            "rounds": {name: [round(value, 4) for value in values] for name, values in self.rounds.items()},
            "notes": self.notes,
            "series": {name: [[round(x, 2), round(y, 2)] for x, y in points] for name, points in self.series.items()},
        }


def beside(name: str, unit: str, ours: Sequence[float], limit: Sequence[float], **more: Any) -> Figure:
    """A figure whose limit was measured in the same run, both by several rounds: the medians count."""
    rounds = {"ours": list(ours), "limit": list(limit)}
    return Figure(name, statistics.median(ours), statistics.median(limit), unit, rounds=rounds, **more)


def under(name: str, unit: str, ours: Sequence[float], ceiling: float, **notes: Any) -> Figure:
    """A figure that is wanted to stay at or under `ceiling`, by the median of its rounds."""
    return Figure(name, statistics.median(ours), ceiling, unit, most=1, rounds={"ours": list(ours)}, notes=notes)


def shown(name: str, unit: str, ours: Sequence[float], **notes: Any) -> Figure:
    """A figure without a limit, shown for comparison."""
    return Figure(name, statistics.median(ours), 0.0, unit, rounds={"ours": list(ours)}, notes=notes)


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of `values` do not exceed; 0 where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def show(figures: Sequence[Figure], title: str = "Tocsin beside its limits") -> None:
    """Prints a table."""
    table = Table(title=title)
    for head in ("stage", "ours", "limit", "unit", "ratio", "wanted", "", "beside"):
        table.add_column(head, justify="right" if head in {"ours", "limit", "ratio"} else "left", overflow="fold")
    for each in figures:
        mark = "" if not each.reach else "[green]yes[/]" if each.reached else "[red]no[/]"
        notes = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in each.notes.items())
        limit, ratio = (_short(each.limit), f"{each.ratio:.2f}") if each.limit else ("", "")
        cells = (each.name, _short(each.ours), limit, each.unit, ratio, each.reach, mark)
        table.add_row(*cells, notes)
    Console(width=None if os.isatty(1) else 160).print(table)


def keep(figures: Sequence[Figure], began_s: float, people: int | None = None) -> Path:
    """Writes the figures of the run that began at `began_s` (since 1970) to bench/results and answers the file's path.
    `people` says that they are of a trial with so many people, which the page (page.py) leaves out."""
    commit = _commit()
    document = {
        "stages": [each.as_json() for each in figures],
        **({"people": people} if people is not None else {}),
        "machine": _machine(),
        "versions": _versions(),
        "commit": commit,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began_s)),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{time.strftime('%Y-%m-%dT%H%M%S', time.gmtime(began_s))}-{commit}.json"
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _commit() -> str:
    """The short name of the commit, marked where files differ from it; not those that measuring itself makes."""
    name = _git("rev-parse", "--short", "HEAD") or "unknown"
    differ = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs", ":!bench/results")
    return f"{name}-changed" if differ else name


def _git(*arguments: str) -> str:
    answer = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=False)
    return answer.stdout.strip()


def _versions() -> dict[str, str]:
    servers = {"postgres": embedded_postgres.runnable(), "redis": Path(embedded_redis.runnable()).name}
    return {"python": platform.python_version()} | servers | {name: version(name) for name in _PACKAGES}


def _machine() -> dict[str, Any]:
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_average": _LOAD,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
