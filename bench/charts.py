"""Two kinds of chart as SVG, small enough to write by hand: bars that compare, and lines over time.

Colours are of Okabe and Ito's palette, which people who see fewer colours can tell apart too; each line is named beside
it besides.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

Points = Sequence[tuple[float, float]]

_WIDTH: Final = 760
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_STYLE: Final = (
    "text{font:13px system-ui,sans-serif;fill:#222}.small{font-size:11px;fill:#555}.title{font-weight:600}"
    ".axis{stroke:#bbb;fill:none}.mark{stroke:#222;stroke-width:2}"
)


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar; `mark` is drawn across it: what is wanted. `ours` gives it our colour."""

    name: str
    value: float
    told: str
    mark: float | None = None
    ours: bool = True


def bars(title: str, rows: Sequence[Bar], *, logarithmic: bool = False) -> str:
    """Horizontal bars, one below the other, each with its value in words."""
    left, right, top, height = 220, 130, 44, 26
    room = _WIDTH - left - right
    most = max([row.value for row in rows] + [row.mark or 0 for row in rows])
    least = min([row.value for row in rows if row.value > 0] or [1]) / 2

    def long(value: float) -> float:
        if logarithmic:
            return room * math.log(max(value, least) / least) / math.log(most / least)
        return room * value / most

    parts = [_text(12, 24, title, "title")]
    for place, row in enumerate(rows):
        y = top + place * height
        colour = _COLOURS[0] if row.ours else "#999999"
        parts.append(_text(left - 8, y + 14, row.name, anchor="end"))
        parts.append(f'<rect x="{left}" y="{y + 2}" width="{long(row.value):.1f}" height="17" fill="{colour}"/>')
        if row.mark is not None:
            x = left + long(row.mark)
            parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 1}" y2="{y + 22}"/>')
        end = left + max(long(row.value), long(row.mark) if row.mark is not None else 0)
        parts.append(_text(end + 6, y + 15, row.told, "small"))
    return _drawn(parts, top + len(rows) * height + 14)


def lines(title: str, curves: Mapping[str, Points], *, x_title: str, y_title: str) -> str:
    """Curves from zero on both axes, each named beside its end."""
    left, right, top, bottom, height = 62, 150, 44, 44, 320
    most_x, most_y = (
        max((point[axis] for points in curves.values() for point in points), default=1) for axis in (0, 1)
    )
    step_x, step_y = _step(most_x), _step(most_y)
    room_x, room_y = _WIDTH - left - right, height - top - bottom
    full_y = math.ceil(most_y / step_y) * step_y

    def x(value: float) -> float:
        return left + room_x * value / most_x

    def y(value: float) -> float:
        return height - bottom - room_y * value / full_y

    parts = [_text(12, 24, title, "title"), _text(left, top - 6, y_title, "small")]
    for number in range(round(full_y / step_y) + 1):
        at = number * step_y
        parts.append(f'<path class="axis" d="M{left} {y(at):.1f}H{left + room_x}"/>')
        parts.append(_text(left - 6, y(at) + 4, f"{at:,g}", "small", "end"))
    marks = [number * step_x for number in range(int(most_x / step_x) + 1)]
    parts += [_text(x(mark), height - bottom + 16, f"{mark:,g}", "small", "middle") for mark in marks]
    parts.append(_text(left + room_x / 2, height - 8, x_title, "small", "middle"))
    ends = _apart({name: y(points[-1][1]) for name, points in curves.items() if points})
    for colour, (name, points) in zip(_COLOURS, curves.items(), strict=False):
        if points:
            path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in points)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
            parts.append(_text(left + room_x + 8, ends[name] + 4, name, colour=colour))
    return _drawn(parts, height)


def _apart(places: Mapping[str, float], gap: float = 15) -> dict[str, float]:
    """The same heights, moved so that no two names lie on one another."""
    moved: dict[str, float] = {}
    last = -math.inf
    for name, place in sorted(places.items(), key=lambda each: each[1]):
        last = moved[name] = max(place, last + gap)
    return moved


def _step(most: float) -> float:
    """A round distance between four to eight lines."""
    size = 10 ** math.floor(math.log10(max(most, 1e-9) / 4))
    return next(size * factor for factor in (1, 2, 2.5, 5, 10) if most / (size * factor) <= 8)


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start", colour: str = "") -> str:
    style = (f' class="{kind}"' if kind else "") + (f' style="fill:{colour}"' if colour else "")
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(text)}</text>'


def _drawn(parts: Sequence[str], height: float) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:g}" width="{_WIDTH}" role="img">'
    ground = f'<rect width="{_WIDTH}" height="{height:g}" fill="#ffffff"/>'
    return "\n".join([head, f"<style>{_STYLE}</style>", ground, *parts, "</svg>"]) + "\n"
