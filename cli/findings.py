"""What `tocsin doctor` finds: one line each, with the mend where something is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

SECRETS_AFTER_DAYS: Final = 90
_DAY_MS: Final = 86_400_000
_CLOCKS_APART_MS: Final = 2_000


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
    stops: bool = False
    """Whether Tocsin does not start with it, for it could not work."""


def ok(subject: str, told: str) -> Finding:
    return Finding(Level.OK, subject, told)


def warn(subject: str, told: str, mend: str) -> Finding:
    return Finding(Level.WARN, subject, told, mend)


def fail(subject: str, told: str, mend: str) -> Finding:
    return Finding(Level.FAIL, subject, told, mend)


def stop(subject: str, told: str, mend: str) -> Finding:
    return Finding(Level.FAIL, subject, told, mend, stops=True)


def clock(subject: str, name: str, off_ms: int) -> Finding:
    """Whether another machine's clock, which is `off_ms` ahead of this one's, tells the same time."""
    if abs(off_ms) <= _CLOCKS_APART_MS:
        return ok(subject, f"its clock and this machine's are {abs(off_ms)} ms apart")
    which = "ahead of" if off_ms > 0 else "behind"
    return warn(
        subject,
        f"{name}'s clock is {abs(off_ms) / 1000:.1f} s {which} this machine's",
        "Let a time service (chrony, NTP) set both. What is due goes by Redis's clock, times shown by Postgres's and "
        "Redis's, the ends of tokens by this machine's.",
    )


def age_of_secret(name: str, since_ms: int, now_ms: int) -> Finding:
    """Whether a secret that is what it is since `since_ms` should be replaced (D5: after 90 days)."""
    days = max(0, now_ms - since_ms) // _DAY_MS
    told = f"{name} is {days} day{'' if days == 1 else 's'} old"
    if days <= SECRETS_AFTER_DAYS:
        return ok("secrets", told)
    return warn("secrets", told, f"Replace it; secrets older than {SECRETS_AFTER_DAYS} days are found out.")
