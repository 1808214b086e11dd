"""The short form of the torture run; `make torture` is the long one (docs/reliability.md)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.servers, pytest.mark.processes, pytest.mark.timeout(420)]

SECONDS = 40


def test_nothing_is_lost_and_nothing_comes_twice_while_everything_falls_over(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TOCSIN_")}
    asked = {
        "TORTURE_SECONDS": str(SECONDS),
        "TORTURE_RATE": "30",
        "TORTURE_QUIET": "90",
        "TORTURE_FOLDER": str(tmp_path),
        "TORTURE_REPORT": str(tmp_path / "report.json"),
    }
    ran = subprocess.run(
        [sys.executable, "-m", "tests.torture.run"],
        env={**environ, **asked, **{name: value for name, value in os.environ.items() if name in asked}},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-2_000:]
