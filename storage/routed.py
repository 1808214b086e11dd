"""The fact of a routed chunk (lua/route.lua): each plan once, with what becomes of it, and then who has it.

Until plans were shared every notification told all of its deliveries itself; a journal that such a version wrote may
still hold facts of that form.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Course = Sequence[Any]
"""[when it was listed or 0, [[step, channel, status, reason, when it is scheduled], …]]; times in ms."""

Note = Sequence[Any]
"""[notification, user, the number of its course, the addresses of the course's steps but for IN_APP's…]"""


def parts(fact: Mapping[str, Any]) -> tuple[Sequence[Course], Sequence[Note]]:
    """The courses and the notifications of a fact. Raises what a fact that makes no sense gives rise to."""
    if "plans" in fact:
        return fact["plans"], fact["n"]
    courses: list[Course] = []
    notes: list[Note] = []
    for identifier, user, listed_ms, steps in fact["n"]:
        addresses = [address for _, channel, _, _, address, _ in steps if channel != "IN_APP"]
        notes.append([identifier, user, len(courses), *addresses])
        courses.append([listed_ms, [[*step[:4], step[5]] for step in steps]])
    return courses, notes


def listed(fact: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    """(user, notification, listed_ms) of those in a fact that are in an inbox."""
    courses, notes = parts(fact)
    for notification, user, course, *_ in notes:
        if listed_ms := courses[course][0]:
            yield user, notification, listed_ms
