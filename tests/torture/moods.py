"""How a provider treats what comes: mostly well, with a little of every fault; sometimes badly for a while."""

import random
from collections.abc import Mapping
from typing import Final

ACCEPT = "accept"
STALL_BEFORE = "stall_before"
STALL_AFTER = "stall_after"
DROP_BEFORE = "drop_before"
DROP_AFTER = "drop_after"
LATER = "later"
NEVER = "never"
LIMITED = "limited"

STALL_S: Final = 4.0
"""Longer than the time-out of every channel (world.py)."""

USUAL: Final[Mapping[str, float]] = {
    STALL_BEFORE: 0.002,
    STALL_AFTER: 0.004,
    DROP_BEFORE: 0.015,
    DROP_AFTER: 0.02,
    LATER: 0.03,
    NEVER: 0.01,
    LIMITED: 0.004,
}
BAD: Final[Mapping[str, Mapping[str, float]]] = {
    "stalls": {STALL_BEFORE: 0.3, STALL_AFTER: 0.4},
    "drops": {DROP_BEFORE: 0.4, DROP_AFTER: 0.4},
    "refuses": {LATER: 0.9, NEVER: 0.05},
    "limits": {LIMITED: 0.9},
}


class Mood:
    """Draws what becomes of one message. `down` means that nobody can connect."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.shares: Mapping[str, float] = USUAL
        self.down = False

    def draw(self) -> str:
        drawn = self._chance.random()
        for what, share in self.shares.items():
            drawn -= share
            if drawn < 0:
                return what
        return ACCEPT

    def calm(self) -> None:
        """Takes everything from now on."""
        self.shares = {}
