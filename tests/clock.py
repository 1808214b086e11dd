"""A clock that stands still until it is told to go on: the one of fakeredis, in which scripts ask for the time."""

import time

import pytest

START_MS = 1_795_000_000_000


class Clock:
    """What `time.time` answers."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now_ms = START_MS
        patch.setattr(time, "time", lambda: self.now_ms / 1000)

    def advance(self, ms: int) -> None:
        self.now_ms += ms
