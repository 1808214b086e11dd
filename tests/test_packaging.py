"""The program starts however it is run, and the standard library's http stays what it is (docs/adr/0003)."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# What a broken mapping would break: the standard library's http, ours, and data beside the code.
PROOF = """
import http.client, tocsin.http.application, tocsin.app
from importlib.resources import files
from tocsin.domain.settings import load
assert "tocsin" not in http.client.__file__.rsplit("http", 1)[0], http.client.__file__
assert load({}).http.port == 8000
assert any(path.name.endswith(".lua") for path in (files("tocsin") / "storage" / "lua").iterdir())
assert any(path.name.endswith(".sql") for path in (files("tocsin") / "storage" / "migrations").iterdir())
print(tocsin.app.__file__)
"""


def run(*command: str | Path, cwd: Path, **environ: str) -> str:
    """What the command printed; it must end well."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TOCSIN_"))}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=plain | environ, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(kind: str, source: Path, into: Path) -> Path:
    """A wheel made by the project's own build backend, without a network. `kind` is build_wheel or build_editable."""
    into.mkdir()
    call = f"import setuptools.build_meta as b, sys; print(b.{kind}(sys.argv[1]))"
    made = run(sys.executable, "-c", call, into, cwd=source).splitlines()[-1]
    return into / made


def python_with(wheel: Path, folder: Path) -> Path:
    """A Python in which `wheel` is installed beside the packages of this one. What pip does to a wheel of pure Python
    is to unpack it, so nothing is fetched."""
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(packages)
    here = Path(pytest.__file__).parent.parent
    links = [entry for entry in here.iterdir() if "tocsin" not in entry.name and not (packages / entry.name).exists()]
    for entry in links:
        (packages / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the project that would be cloned, apart from the work tree's leftovers."""
    copy = tmp_path_factory.mktemp("source") / "clone"
    leftovers = shutil.ignore_patterns(".*", "build", "data", "*.egg-info", "__pycache__", "bench", "tests")
    return Path(shutil.copytree(ROOT, copy, ignore=leftovers))


def test_python_app_py_runs(tmp_path: Path) -> None:
    assert "serve" in run(sys.executable, ROOT / "app.py", "--help", cwd=tmp_path)
    assert "serve" in run(sys.executable, "app.py", "--help", cwd=ROOT)


def test_python_m_pytest_finds_the_standard_librarys_http() -> None:
    asked = "import sys; sys.path.insert(0, ''); import http.client; print(http.client.__file__)"
    assert str(ROOT) not in run(sys.executable, "-c", asked, cwd=ROOT)
    assert "test_settings.py" in run(
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/test_settings.py",
        cwd=ROOT,
    )


def test_a_wheel_holds_the_whole_program(source: Path, tmp_path: Path) -> None:
    wanted = {path.relative_to(source) for path in source.rglob("*") if path.suffix in {".py", ".lua", ".sql", ".html"}}
    wanted = {Path("tocsin") / path for path in wanted if path.parts[0] not in {"docs", "build"}}
    wheel = build("build_wheel", source, tmp_path / "wheel")
    held = {Path(name) for name in zipfile.ZipFile(wheel).namelist()}
    assert wanted - held == set(), "list the folder under [tool.setuptools] packages"
    assert not [path for path in held if path.parts[:2] in {("tocsin", "tests"), ("tocsin", "docs")}]
    python = python_with(wheel, tmp_path / "venv")
    assert str(tmp_path / "venv") in run(python, "-c", PROOF, cwd=tmp_path)


def test_an_editable_install_runs_from_the_source(source: Path, tmp_path: Path) -> None:
    python = python_with(build("build_editable", source, tmp_path / "wheel"), tmp_path / "venv")
    assert run(python, "-c", PROOF, cwd=tmp_path).strip() == str(source / "app.py")


LOCKS = [ROOT / name for name in ("requirements.lock", "requirements-dev.lock", "requirements-uv.lock")]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_holds_names_versions_and_hashes_and_no_address(lock: Path) -> None:
    text = re.sub(r"\\\n *", " ", lock.read_text())
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    wrong = [line for line in lines if not re.match(r"[a-z0-9-]+==\S+ +(; .+ )?--hash=sha256:", line)]
    assert wrong == []
    assert not re.search(r"://|index-url|find-links", text)


def test_the_locks_hold_what_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(each for extra in project["optional-dependencies"].values() for each in extra)]
    names = {re.match(r"[\w-]+", each)[0].lower() for each in asked}  # type: ignore[index]
    locked = set(re.findall(r"^([a-z0-9-]+)==", LOCKS[1].read_text(), re.MULTILINE))
    assert names - locked == set(), "run `make lock`"
    running = set(re.findall(r"^[a-z0-9-]+==\S+", LOCKS[0].read_text(), re.MULTILINE))
    assert running <= set(re.findall(r"^[a-z0-9-]+==\S+", LOCKS[1].read_text(), re.MULTILINE))


def test_make_help_names_every_command() -> None:
    told = set(re.findall(r"make (\w+) ", run("make", "help", cwd=ROOT)))
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert told == set(phony.split())
    assert {"run", "test", "check", "bench", "help"} <= told


def test_ci_calls_the_commands_of_people() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "set -euo pipefail" in script
    assert script.rstrip().endswith("make check\nmake test")
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_command_is_installed() -> None:
    command = Path(sys.executable).with_name("tocsin")
    if not command.exists():
        pytest.skip("the suite runs without an installed tocsin")
    assert "serve" in run(command, "--help", cwd=Path("/"))
