"""When a provider rests: the rules of the circuit breaker; storage/lua/breaker.lua carries them out (docs/adr/0006)."""

from dataclasses import dataclass
from enum import StrEnum


class Health(StrEnum):
    """What one outcome says of the provider as a whole."""

    UP = "up"
    DOWN = "down"
    UNSAID = ""
    """Nothing: it was about one message, or no call was made."""


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """After `failures` in a row (0: never) a provider rests `rest_ms`, twice as long each time up to `cap_ms`, and is
    back after `successes`."""

    failures: int
    rest_ms: int
    cap_ms: int
    successes: int


NEVER = BreakerRules(failures=0, rest_ms=1, cap_ms=1, successes=1)
"""No provider ever rests."""
