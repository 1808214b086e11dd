"""The image: its steps in an empty place, alone with one volume, and the demo inside (tests/image/run_steps.py)."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.missing import missing
from tests.program import free_port

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.processes


def test_the_image_only_takes_what_it_needs() -> None:
    sys.path.insert(0, str(ROOT / "tests" / "image"))
    try:
        from dockerfile import context  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    taken = {str(path) for path in context(ROOT)}
    assert {"app.py", "settings.toml", "requirements.lock", "storage/store.py", "storage/lua/lib.lua"} <= taken
    assert not [
        path for path in taken if path.startswith(("tests/", "bench/", "docs/", "data/", ".")) or "__pycache__" in path
    ]


def test_dockerfile_and_compose_name_images_without_a_registry() -> None:
    named = re.findall(r"^FROM (\S+)$|^ *image: (\S+)$", _text("Dockerfile") + _text("compose.yaml"), re.MULTILINE)
    assert len(named) == 3
    assert not ["".join(each) for each in named if "/" in "".join(each)]


@pytest.mark.timeout(600)
def test_the_image_runs_alone_and_the_demo_passes_inside(outer_environ: dict[str, str]) -> None:
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("apt-get"):
        missing("the steps of the image can be run only by root on a Debian")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        missing("this machine does not let root make a place apart")
    given = ["--env", f"TOCSIN_HTTP__PORT={free_port()}", "--command", "tocsin serve --sandbox"]
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "image" / "run_steps.py", ROOT, *given, "--beside", "tocsin demo"],
        env={name: value for name, value in outer_environ.items() if not name.startswith("TOCSIN_")},
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]
    assert done.stdout.count("HEALTHY") == done.stdout.count("STOPPED with 0") == 2


def _text(name: str) -> str:
    return (ROOT / name).read_text()
