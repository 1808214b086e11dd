"""Makes the tables and charts of docs/performance.md, and the one of docs/scaling.md, from what is kept in
bench/results: `python bench/page.py`. `make bench` ends with it; a test holds pages and results together.

Of each figure the newest counts. What was tried with fewer people is left out.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tocsin.bench.charts import Bar, bars, lines
from tocsin.bench.report import RESULTS
from tocsin.bench.words import WORDS

_DOCS: Final = RESULTS.parent.parent / "docs"
_CHARTS: Final = _DOCS / "charts"
_BEGINS: Final = "<!-- {}: made by bench/page.py -->"
_ENDS: Final = "<!-- end of {} -->"
_PAGES: Final = {"performance.md": ("measured", "missed", "peers", "memory"), "scaling.md": ("scale",)}


@dataclass(frozen=True, slots=True)
class Kept:
    """One figure as it is kept, and the document it stands in."""

    figure: Mapping[str, Any]
    source: str
    document: Mapping[str, Any]


def newest(folder: Path = RESULTS) -> dict[str, Kept]:
    """The newest of each figure by its name."""
    documents = [(path.name, json.loads(path.read_text(encoding="utf-8"))) for path in folder.glob("*.json")]
    found: dict[str, Kept] = {}
    for name, document in sorted(documents, key=lambda each: str(each[1]["at"])):
        if "people" not in document:
            found |= {figure["name"]: Kept(figure, name, document) for figure in document["stages"]}
    return found


def made(folder: Path = RESULTS) -> dict[Path, str]:
    """Every file that is made of the results, with its text: pages with their tables anew, and charts."""
    kept = newest(folder)
    charts = dict(_charts(kept))
    sections = {
        "measured": _measured(kept, charts),
        "missed": _missed(kept),
        "peers": _shown("peers", charts),
        "memory": "\n\n".join(_shown(name, charts) for name in charts if name.startswith("memory")),
        "scale": _scale(kept, charts),
    }
    files = {_CHARTS / f"{name}.svg": text for name, text in charts.items()}
    for page, names in _PAGES.items():
        text = (_DOCS / page).read_text(encoding="utf-8")
        for name in names:
            text = _replaced(text, name, sections[name])
        files[_DOCS / page] = text
    return files


def remake() -> None:
    """Writes them."""
    _CHARTS.mkdir(exist_ok=True)
    for path, text in made().items():
        path.write_text(text, encoding="utf-8")


def _replaced(page: str, name: str, text: str) -> str:
    """The page with another text between its two marks. Raises ValueError where they are missing."""
    begins, ends = _BEGINS.format(name), _ENDS.format(name)
    before, found, rest = page.partition(begins)
    if not found or ends not in rest:
        raise ValueError(f"the page has no place for {name}")
    return f"{before}{begins}\n\n{text}\n\n{ends}{rest.partition(ends)[2]}"


def _measured(kept: Mapping[str, Kept], charts: Mapping[str, str]) -> str:
    rows = ["| stage | ours | limit | ratio | wanted | |", "|---|---|---|---|---|---|"]
    used = [kept[name] for name in WORDS if name in kept]
    rows += [_row(WORDS[name], kept[name].figure) for name in WORDS if name in kept]
    sources = {each.source: each.document for each in used}
    told = [_source(name, document) for name, document in sources.items()]
    return "\n".join(rows) + "\n\n" + "\n".join(told) + "\n\n" + _shown("ratios", charts)


def _missed(kept: Mapping[str, Kept]) -> str:
    """One line for each figure that misses what is wanted of it; the reasons are written by hand below."""
    figures = [kept[name].figure for name in WORDS if name in kept]
    missed = [each for each in figures if each["reach"] and not each["reached"]]
    told = [
        f"- `{each['name']}`: {_number(each['ours'])} {each['unit']} beside {_number(each['limit'])}, a ratio of"
        f" {each['ratio']:.2f} where {each['reach']} is wanted."
        for each in missed
    ]
    return "\n".join(told) or "Each figure above reaches what is wanted of it."


def _row(words: str, figure: Mapping[str, Any]) -> str:
    unit = f" {figure['unit']}"
    wanted, limit = figure["reach"], figure["limit"]
    mark = "" if not wanted else "yes" if figure["reached"] else "**no**"
    cells = (
        _number(figure["ours"]) + unit,
        _number(limit) + unit if limit else "",
        f"{figure['ratio']:.2f}" if limit else "",
    )
    return f"| {words} | {' | '.join(cells)} | {wanted} | {mark} |"


def _source(name: str, document: Mapping[str, Any]) -> str:
    machine, versions = document["machine"], document["versions"]
    told = ", ".join(
        [
            f"{machine['cores']} cores of {machine['processor']}",
            f"{machine['memory_gb']} GB",
            machine["system"],
            f"Python {versions['python']}",
            versions["postgres"],
            versions["redis"],
        ]
    )
    return f"- [{name}](../bench/results/{name}): {told}; load before it {machine['load_average']}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _shown(name: str, charts: Mapping[str, str]) -> str:
    return f"![{_ALT[name]}](charts/{name}.svg)" if name in charts else "Not measured yet."


def _charts(kept: Mapping[str, Kept]) -> Iterator[tuple[str, str]]:
    figures = {name: each.figure for name, each in kept.items()}
    if beside := [each for name in WORDS if (each := figures.get(name)) and each["rounds"].get("limit")]:
        yield "ratios", bars("Ours beside the limit of the same run (the line: what is wanted)", _ratio_bars(beside))
    if peers := [each for name, each in figures.items() if name.startswith("peers_")]:
        yield "peers", bars("Items that do nothing, a second", _peer_bars(peers), logarithmic=True)
    for name, (figure, title) in _MEMORY.items():
        if (each := figures.get(figure)) and each["series"]:
            yield name, lines(title, each["series"], x_title="seconds", y_title="MB")
    if curves := dict(_scale_curves(figures)):
        yield "scale", lines("The same work for more processes", curves, x_title="processes", y_title="× one process")


def _ratio_bars(figures: Sequence[Mapping[str, Any]]) -> list[Bar]:
    return [
        Bar(
            each["name"].replace("_", " "),
            min(each["ratio"], _WIDEST),
            f"{each['ratio']:.2f} ({_number(each['ours'])} {each['unit']})",
            float(each["reach"].split()[1]) if each["reach"] else None,
        )
        for each in figures
        if not each["name"].startswith("peers_")
    ]


def _peer_bars(figures: Sequence[Mapping[str, Any]]) -> list[Bar]:
    names = {"peers_batches": "Tocsin, in batches", "peers_single": "Tocsin, each its own event"}
    made = [
        Bar(
            names.get(each["name"], each["name"].removeprefix("peers_")),
            each["ours"],
            _number(each["ours"]),
            None,
            each["name"] in names,
        )
        for each in figures
    ]
    return sorted(made, key=lambda bar: -bar.value)


def _scale_curves(figures: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    for kind, words in _KINDS.items():
        rates = [(count, figures.get(f"scale_{kind}_{count}")) for count in (1, 2, 4)]
        points = [(float(count), float(figure["ours"])) for count, figure in rates if figure]
        if points:
            yield words, [(count, rate / points[0][1]) for count, rate in points]


def _scale(kept: Mapping[str, Kept], charts: Mapping[str, str]) -> str:
    rows = ["| work | 1 process | 2 | 4 |", "|---|---|---|---|"]
    for kind, words in _KINDS.items():
        found = [kept.get(f"scale_{kind}_{count}") for count in (1, 2, 4)]
        if any(found):
            told = [f"{_number(each.figure['ours'])} {each.figure['unit']}" if each else "" for each in found]
            rows.append(f"| {words} | {' | '.join(told)} |")
    shares = [_shares(count, kept.get(f"scale_stored_{count}")) for count in (1, 2, 4)]
    return "\n".join(rows) + "\n\n" + "\n".join(filter(None, shares)) + "\n\n" + _shown("scale", charts)


def _shares(count: int, kept: Kept | None) -> str:
    if kept is None:
        return ""
    notes = kept.figure["notes"]
    told = ", ".join(f"{name} {notes[f'cores_of_{name}']:.2f}" for name in ("actors", "redis", "postgres"))
    return f"- Cores used while people were stored, with {count} {'process' if count == 1 else 'processes'}: {told}."


_WIDEST: Final = 4.0
_KINDS: Final = {
    "stored": "people routed and stored",
    "mailed": "mails, answered at once",
    "mailed_far": "mails, answered after 50 ms",
}
_MEMORY: Final = {
    "memory_broadcast": ("broadcast_memory", "A broadcast to 100,000, in-app and email: memory"),
    "memory_million": ("broadcast_million_memory", "A broadcast to 1,000,000, in-app: memory"),
    "memory_killed": ("killed_memory", "1,000,000 recipients, actors killed five times: memory"),
}
_ALT: Final = {
    "ratios": "Each stage beside its limit",
    "peers": "Items a second, beside other task queues",
    "memory_broadcast": "Memory during a broadcast to 100,000",
    "memory_million": "Memory during a broadcast to 1,000,000",
    "memory_killed": "Memory during a broadcast to 1,000,000 whose actors are killed five times",
    "scale": "Speed by the number of processes",
}

if __name__ == "__main__":
    remake()
