"""How a delivery that is not final goes on after Redis was lost. Pure.

What was claimed shows in nothing that Postgres has until its provider call begins; so a delivery whose time had come
may have been sent by a process that died with Redis. When every process has told what it knew, it was not.
"""

from dataclasses import dataclass, field

from tocsin.domain.delivery import OPEN, Channel, History, Status, key, parse_key, shown_attempt
from tocsin.storage.flight_parts import OpenStep


@dataclass
class Resuming:
    """`exact`: every process has told; `lost_ms`: when Redis was lost; `lease_ms`: how long a provider call may
    take."""

    exact: bool
    lost_ms: int
    lease_ms: int
    doubted: int = field(default=0)
    """How many count as sent by nobody knows whom."""

    def step(self, number: int, channel: Channel, history: History, scheduled_ms: int | None) -> OpenStep | None:
        """The step as it goes on; None for one that is final."""
        attempt, status = _standing(history)
        if status not in OPEN:
            return None
        told = history[key(attempt, status)]
        if status is Status.SENDING:
            return OpenStep(number, channel, status, attempt, int(told["at"]) + self.lease_ms)
        time_ms = int(told.get("due") or (scheduled_ms if status is Status.SCHEDULED else None) or told["at"])
        if not self.exact and channel is not Channel.IN_APP and time_ms <= self.lost_ms:
            self.doubted += 1
            return OpenStep(number, channel, Status.SENDING, attempt, self.lost_ms)
        return OpenStep(number, channel, status, attempt, time_ms)


def _standing(history: History) -> tuple[int, Status]:
    """The attempt that counts and where it stands; of most only the plan is known."""
    if len(history) == 1:
        attempt, status, _ = parse_key(next(iter(history)))
        return attempt, status
    return shown_attempt(history)
