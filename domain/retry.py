"""When a delivery is tried again (S8): exponential back-off with jitter, never before the provider asked."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryRule:
    """How often and how patiently; times in milliseconds, `jitter` as a share of the delay."""

    attempts: int
    base_ms: int
    cap_ms: int
    jitter: float

    def delay_ms(self, attempt: int, chance: float, asked_s: float | None = None) -> int:
        """The wait after failed attempt number `attempt`. `chance` in 0…1 spreads it by ± `jitter`; `asked_s` is the
        provider's Retry-After, which is never undercut."""
        backed_off = min(self.cap_ms, self.base_ms * 2 ** (attempt - 1))
        spread = backed_off * (1 + self.jitter * (2 * chance - 1))
        return int(max(spread, (asked_s or 0) * 1000))

    def allows(self, attempt: int) -> bool:
        """Whether another attempt may follow number `attempt`. Numbers go on when a dead letter is replayed: after
        three come 4, 5 and 6; what was refused for good at the first gets 2 and 3."""
        return attempt % self.attempts != 0
