"""What a check is: it looks at the evidence of a run alone and answers what is wrong. All of them: checks.py."""

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.torture.evidence import Evidence


@dataclass(slots=True)
class Check:
    """One check's result. `wrong` pairs what it is about (a delivery's or an event's id, or '') with what is wrong;
    `apart` is what is explained by what nobody can prevent, and counted."""

    name: str
    group: str
    looked_at: int = 0
    wrong: list[tuple[str, str]] = field(default_factory=list)
    apart: list[tuple[str, str]] = field(default_factory=list)


Look = Callable[[Evidence, Check], None]


class Rules:
    """The checks of one group by their names, in the order in which they are written."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.named: dict[str, Look] = {}

    def add(self, name: str) -> Callable[[Look], Look]:
        """Says that a function is the check `name`."""

        def register(look: Look) -> Look:
            self.named[name] = look
            return look

        return register
