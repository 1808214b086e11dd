"""The memory of processes over time, watched from beside them."""

import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType

import psutil

Series = dict[str, list[tuple[float, float]]]


class Watch:
    """Looks at processes, and at what else is named, while it is entered: `series` has MB over seconds by name.

    A process may give way to another of the same name; a group of processes, such as Postgres's, counts what is each
    one's own and not what they share.
    """

    def __init__(self, pids: Mapping[str, Callable[[], int]], every_s: float = 0.5) -> None:
        self._pids = pids
        self._more: dict[str, Callable[[], float]] = {}
        self._every_s = every_s
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.series: Series = {}

    def also(self, name: str, look: Callable[[], float]) -> "Watch":
        """Watches a number too."""
        self._more[name] = look
        return self

    def __enter__(self) -> "Watch":
        self._began_s = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.set()
        self._thread.join()

    def peak(self, name: str) -> float:
        """The most that was seen."""
        return max((value for _, value in self.series.get(name, [])), default=0.0)

    def _look(self) -> None:
        while True:
            at_s = time.monotonic() - self._began_s
            for name, pid in self._pids.items():
                self._add(name, at_s, lambda pid=pid: _own_mb(pid()))  # type: ignore[misc]
            for name, look in self._more.items():
                self._add(name, at_s, look)
            if self._ends.wait(self._every_s):
                return

    def _add(self, name: str, at_s: float, look: Callable[[], float]) -> None:
        try:
            value = look()
        except (psutil.Error, OSError, LookupError):
            return
        self.series.setdefault(name, []).append((at_s, value))


def _own_mb(pid: int) -> float:
    top = psutil.Process(pid)
    children = top.children(recursive=True)
    if not children:
        return float(top.memory_info().rss) / 1e6
    own = 0
    for process in (top, *children):
        try:
            memory = process.memory_info()
        except psutil.NoSuchProcess:
            continue
        own += memory.rss - memory.shared
    return own / 1e6


def thinned(series: Series, most: int = 240) -> Series:
    """So many points of each curve as a chart can show, its highest among them."""
    return {name: _thinned(points, most) for name, points in series.items()}


def _thinned(points: list[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    width = -(-len(points) // most)
    return [max(points[first : first + width], key=lambda point: point[1]) for first in range(0, len(points), width)]
