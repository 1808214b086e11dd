"""Reads a Dockerfile and a .dockerignore, as far as ours need it; an instruction beyond that is refused."""

import fnmatch
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

KNOWN = frozenset(
    {"FROM", "RUN", "COPY", "ENV", "WORKDIR", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "CMD"}
)


@dataclass(frozen=True)
class Step:
    """One instruction, such as RUN, and what follows it on its lines."""

    instruction: str
    text: str

    @property
    def words(self) -> list[str]:
        """The command as a list, whether it is written as JSON or for a shell."""
        return list(json.loads(self.text)) if self.text.startswith("[") else ["/bin/sh", "-c", self.text]


def steps(text: str) -> list[Step]:
    """The instructions of a Dockerfile in order. Raises ValueError for one that run_steps.py cannot carry out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n", " ", "\n".join(lines))
    found = [Step(*line.split(None, 1)) for line in whole.splitlines() if line.strip()]
    unknown = {step.instruction for step in found} - KNOWN
    if unknown:
        raise ValueError(f"run_steps.py does not know {', '.join(sorted(unknown))}")
    return found


def settings_of(step: Step, environ: dict[str, str]) -> dict[str, str]:
    """What an ENV sets, with $NAME replaced."""
    pairs = (word.partition("=") for word in shlex.split(step.text))
    return {name: re.sub(r"\$(\w+)", lambda found: environ.get(found[1], ""), value) for name, _, value in pairs}


def context(folder: Path) -> list[Path]:
    """The files below `folder` that its .dockerignore lets into the image, relative to it."""
    rules = [line for line in (folder / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    return [path for path in _files(folder) if not _ignored(path, rules)]


def _files(folder: Path) -> list[Path]:
    # Only what a clone would have: a rule that is too wide must not be hidden by what lies about here, nor shown by it.
    hidden = {".git", ".venv", ".link", "data"}
    return [
        path.relative_to(folder)
        for top in folder.iterdir()
        if top.name not in hidden
        for path in ([top] if top.is_file() else top.rglob("*"))
        if path.is_file()
    ]


def _ignored(path: Path, rules: list[str]) -> bool:
    ignored = False
    for rule in rules:
        pattern = rule.removeprefix("!")
        candidates = [str(path), *map(str, path.parents)]
        if pattern.startswith("**/"):
            matches = any(fnmatch.fnmatch(part, pattern[3:]) for part in path.parts)
        else:
            matches = any(fnmatch.fnmatchcase(each, pattern) for each in candidates if each != ".")
        if matches:
            ignored = not rule.startswith("!")
    return ignored
