"""What is said while something is away or broken: once a minute for each kind of work, not a flood (R2)."""

import time

from loguru import logger

from tocsin.domain.errors import Unavailable

_QUIET_S = 60.0
_said: dict[str, float] = {}


def say(work: str, error: Unavailable) -> None:
    """Warns that `work` waits, unless that was said less than a minute ago."""
    if _is_time_for(work):
        logger.warning("{} waits: {}", work, error)


def remind(what: str) -> None:
    """Warns of `what`, unless that was done less than a minute ago."""
    if _is_time_for(what):
        logger.warning(what)


def say_failed(work: str) -> None:
    """Tells the exception that is being handled, a defect of ours, unless one of `work` was told less than a minute
    ago: what is tried again each second would tell it each second."""
    if _is_time_for(f"{work} failed"):
        logger.exception("{} failed; it is tried again, and said again in a minute", work)


def _is_time_for(what: str) -> bool:
    now_s = time.monotonic()
    if now_s - _said.get(what, -_QUIET_S) < _QUIET_S:
        return False
    _said[what] = now_s
    return True
