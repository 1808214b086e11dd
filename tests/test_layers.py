"""The rules of the house that a machine can hold (docs/adr/0003): who may import whom, and what is called what."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tocsin.domain.delivery import Status

ROOT = Path(__file__).resolve().parent.parent

BELOW = {
    "domain": set(),
    "channels": {"domain"},
    "storage": {"domain"},
    "actors": {"domain", "channels", "storage"},
    "http": {"domain", "channels", "storage", "actors"},
    "cli": {"domain", "channels", "storage", "actors", "http"},
    "app": {"domain", "channels", "storage", "actors", "http", "cli"},
}
"""Each floor, and those that it may import."""

STORES = {"peewee", "playhouse", "psycopg2", "redis"}
FILES = [ROOT / "app.py", *(path for floor in BELOW for path in sorted((ROOT / floor).rglob("*.py")))]
OURS = [*FILES, *(path for folder in ("tests", "bench", "docs") for path in sorted((ROOT / folder).rglob("*.py")))]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def floor_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """The dotted names that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_imports_go_one_way() -> None:
    wrong = []
    for path in FILES:
        allowed = BELOW[floor_of(path)] | {floor_of(path)}
        for name in imported(path):
            package, _, rest = name.partition(".")
            upward = package == "tocsin" and rest.split(".")[0] in BELOW.keys() - allowed
            # As `import storage.keys` a second copy of the module would be loaded; http is the standard library's.
            past_the_package = package in BELOW.keys() - {"http"}
            if upward or past_the_package:
                wrong.append(f"{name_of(path)} imports {name}")
    assert wrong == []


def test_only_storage_knows_the_stores() -> None:
    outside = [path for path in FILES if floor_of(path) != "storage"]
    assert [name_of(path) for path in outside if {name.split(".")[0] for name in imported(path)} & STORES] == []


def test_a_status_is_named_by_its_constant() -> None:
    # FAILED is what an event can be, too.
    words = set(Status) - {Status.FAILED}
    wrong = []
    for path in FILES:
        constants = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
        wrong += [f"{name_of(path)}:{node.lineno}" for node in constants if node.value in words]
    assert [place for place in wrong if not place.startswith("domain/delivery.py")] == []


def test_nothing_of_ours_imports_smtplib() -> None:
    assert [name_of(path) for path in OURS if any(name.split(".")[0] == "smtplib" for name in imported(path))] == []


def test_http_is_no_package_of_its_own() -> None:
    # With an __init__.py it would hide the standard library's http wherever the root is on sys.path.
    assert not (ROOT / "http" / "__init__.py").exists()


def test_files_are_named_for_what_they_hold() -> None:
    said_nothing = {"utils", "util", "helpers", "helper", "manager", "managers", "misc", "common"}
    assert [name_of(path) for path in OURS if path.stem in said_nothing] == []
