"""How many messages a provider is given; storage/lua/rate.lua carries it out (docs/adr/0013)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `per_s` messages a second and `burst` at once: in any `t` seconds no more than per_s · t + burst begin,
    whatever number of processes send."""

    per_s: float
    burst: int

    @property
    def per_1000_s(self) -> int:
        """The same as a whole number, which is what scripts count with."""
        return max(1, round(self.per_s * 1000))
