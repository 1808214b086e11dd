"""What `tocsin doctor` finds: one line each, with the mend where something is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

SECRETS_AFTER_DAYS: Final = 90
_DAY_MS: Final = 86_400_000


class Level(StrEnum):
    """How a finding stands; only FAIL ends the doctor with 1."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor. Holds no secret."""

    level: Level
    subject: str
    told: str
    mend: str = ""


def ok(subject: str, told: str) -> Finding:
    return Finding(Level.OK, subject, told)


def warn(subject: str, told: str, mend: str) -> Finding:
    return Finding(Level.WARN, subject, told, mend)


def fail(subject: str, told: str, mend: str) -> Finding:
    return Finding(Level.FAIL, subject, told, mend)


def age_of_secret(name: str, since_ms: int, now_ms: int) -> Finding:
    """Whether a secret that is what it is since `since_ms` should be replaced (D5: after 90 days)."""
    days = max(0, now_ms - since_ms) // _DAY_MS
    told = f"{name} is {days} day{'' if days == 1 else 's'} old"
    if days <= SECRETS_AFTER_DAYS:
        return ok("secrets", told)
    return warn("secrets", told, f"Replace it; secrets older than {SECRETS_AFTER_DAYS} days are found out.")
