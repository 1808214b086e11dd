"""Which message at a provider is which attempt of ours (T7): exact where an id tells, else by time, and never by guess.

Pure. What provider files call `search` answers messages with the same To, From and body; here their times decide.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Method(StrEnum):
    """How it was found out what became of an attempt."""

    PROVIDER_ID = "provider_id"
    TIME_WINDOW = "time_window"
    PERSON = "person"


class Confidence(StrEnum):
    """How sure that is. Low confidence never changes a delivery; it is listed for a person to judge."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


SLACK_MS: Final = 60_000
"""How far beyond an attempt's own time a message can lie that is still taken for a rival: clocks differ."""
_NEAR_MS: Final = 5_000
_FAR_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Window:
    """When an attempt can have reached its provider: from when its call began to when it was given up, in ms."""

    began_ms: int
    ended_ms: int

    def holds(self, at_ms: int) -> bool:
        """Whether a message of that time can be of this attempt."""
        return self.began_ms - SLACK_MS <= at_ms <= self.ended_ms + SLACK_MS


@dataclass(frozen=True, slots=True)
class Candidate:
    """A message at the provider with the same To, From and body; `at_ms` when the provider says that it was made."""

    provider_id: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Attribution:
    """The one message that can be an attempt's; `difference_ms` from when its call began, less than 0 when before."""

    candidate: Candidate
    confidence: Confidence
    difference_ms: int


class Unattributed(StrEnum):
    """Why no message was taken for the attempt's."""

    NONE = "none"
    TIE = "tie"


def attribute(
    window: Window, candidates: Iterable[Candidate], *, taken: Collection[str], rivals: Iterable[Window]
) -> Attribution | Unattributed:
    """The one candidate that can be this attempt's. `taken` are ids of messages that belong to other deliveries;
    `rivals` the windows of other attempts in doubt that said the same to the same address. Where several candidates
    fit, or one fits a rival too, none is taken."""
    fitting = {
        each.provider_id: each for each in candidates if each.provider_id not in taken and window.holds(each.at_ms)
    }
    if not fitting:
        return Unattributed.NONE
    if len(fitting) > 1:
        return Unattributed.TIE
    (found,) = fitting.values()
    if any(rival.holds(found.at_ms) for rival in rivals):
        return Unattributed.TIE
    difference_ms = found.at_ms - window.began_ms
    return Attribution(found, confidence_of(difference_ms), difference_ms)


def confidence_of(difference_ms: int) -> Confidence:
    """How sure a time makes. Providers round to the second, and their call takes a moment; a message that was there
    well before the call began is hardly its own."""
    if abs(difference_ms) <= _NEAR_MS:
        return Confidence.HIGH
    return Confidence.MEDIUM if 0 < difference_ms <= _FAR_MS else Confidence.LOW
