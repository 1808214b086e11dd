"""How quickly a lane sends, as of late: what it claims ahead is what starts in the next moment."""

import time
from typing import Final

_SPAN_S: Final = 0.05
_AHEAD_S: Final = 0.1
_QUICK_PER_S: Final = 100


class Pace:
    """Counts what ends. A new one knows of nothing, and claims nothing ahead."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self.forget()

    def forget(self) -> None:
        """Begins anew, as after a pause or when the provider fails."""
        self._ended = 0
        self._since_s = time.monotonic()
        self._per_s = 0.0

    def note(self) -> None:
        """One ended."""
        self._ended += 1

    @property
    def is_quick(self) -> bool:
        """Whether sends end faster than a beginning for each is worth its time."""
        return self._per_s >= _QUICK_PER_S

    @property
    def ahead(self) -> int:
        """How many more than may start at once will start within a tenth of a second; 0 where a provider takes longer
        than that, so that nothing lies claimed here that another process could send."""
        span_s = time.monotonic() - self._since_s
        if span_s >= _SPAN_S:
            self._per_s = self._ended / span_s
            self._ended, self._since_s = 0, time.monotonic()
        count = int(self._per_s * _AHEAD_S)
        return count if count >= self._concurrency else 0
