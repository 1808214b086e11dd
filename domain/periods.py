"""Spans of time that stored rows are kept apart by: days, weeks (from Monday) or months, in UTC. Pure; no clock."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

_DAY: Final = timedelta(days=1)


class Period(StrEnum):
    """How much time the rows of one partition are of."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


AHEAD: Final = {Period.DAY: 7, Period.WEEK: 3, Period.MONTH: 2}
"""How many spans there are to be after the one that is now: a week's outage of whoever makes them costs nothing."""


@dataclass(frozen=True, slots=True)
class Span:
    """From `start_ms` to before `end_ms`, in ms since 1970; `name` tells which span it is."""

    name: str
    start_ms: int
    end_ms: int


def spans(period: Period, now_ms: int) -> Iterator[Span]:
    """The span that is at `now_ms`, and those that follow it, as many as AHEAD says."""
    start = _start(period, datetime.fromtimestamp(now_ms / 1000, UTC))
    for _ in range(AHEAD[period] + 1):
        end = _start(period, start + {Period.DAY: _DAY, Period.WEEK: 7 * _DAY, Period.MONTH: 32 * _DAY}[period])
        yield Span(_name(period, start), _ms(start), _ms(end))
        start = end


def left_of(span: Span, taken: Sequence[tuple[int, int]]) -> Iterator[Span]:
    """The parts of `span` that lie in none of `taken` (from, to before; ms). A part has both its days for a name."""
    start_ms = span.start_ms
    for first_ms, last_ms in [*sorted(taken), (span.end_ms, span.end_ms)]:
        end_ms = min(first_ms, span.end_ms)
        if end_ms > start_ms:
            whole = (start_ms, end_ms) == (span.start_ms, span.end_ms)
            yield span if whole else Span(f"{_day(start_ms)}_to_{_day(end_ms)}", start_ms, end_ms)
        start_ms = max(start_ms, last_ms)


def _start(period: Period, moment: datetime) -> datetime:
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if period is Period.WEEK:
        return day - day.weekday() * _DAY
    return day.replace(day=1) if period is Period.MONTH else day


def _name(period: Period, start: datetime) -> str:
    if period is Period.WEEK:
        year, week, _ = start.isocalendar()
        return f"{year}_w{week:02}"
    return start.strftime("%Y_%m" if period is Period.MONTH else "%Y_%m_%d")


def _day(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y_%m_%d")


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
