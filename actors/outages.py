"""What is said while something is away: one line a minute for each kind of work, not a flood (R2)."""

import time

from loguru import logger

from tocsin.domain.errors import Unavailable

_QUIET_S = 60.0
_said: dict[str, float] = {}


def say(work: str, error: Unavailable) -> None:
    """Warns that `work` waits, unless that was said less than a minute ago."""
    now_s = time.monotonic()
    if now_s - _said.get(work, -_QUIET_S) >= _QUIET_S:
        _said[work] = now_s
        logger.warning("{} waits: {}", work, error)
