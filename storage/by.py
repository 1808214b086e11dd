"""Who asks for something that is audited."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class By:
    """Who asks, and under which correlation id."""

    actor: str
    cid: str
