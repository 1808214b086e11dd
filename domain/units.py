"""Durations and sizes as people write them in settings: "10m", "250ms", "600MB"."""

import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

_SIZE: Final = re.compile(r"(\d+)(B|KB|MB|GB)", re.IGNORECASE)
# Powers of 1024, as Redis and Postgres read the same letters.
_BYTES: Final = {"B": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3}


def parse_duration(text: Any) -> int:
    """The milliseconds of "250ms", "3s", "10m", "1h" or "7d". Raises ValueError for anything else, bare numbers too:
    they do not say what they count."""
    found = _DURATION.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is None:
        raise ValueError('write a number and its unit, such as "250ms", "30s", "10m", "1h" or "7d"')
    return round(float(found[1]) * _MS[found[2]])


def parse_size(text: Any) -> int:
    """The bytes of "16KB", "600MB" or "2GB". Raises ValueError for anything else."""
    found = _SIZE.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is None:
        raise ValueError('write a whole number and its unit, such as "16KB", "600MB" or "2GB"')
    return int(found[1]) * _BYTES[found[2].upper()]


DurationMs = Annotated[int, BeforeValidator(parse_duration)]
"""A duration written with its unit, kept in milliseconds."""

SizeBytes = Annotated[int, BeforeValidator(parse_size)]
"""A size written with its unit, kept in bytes."""
