"""The examples of docs/api.md, run as they stand against a running program."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.missing import missing
from tests.program import ADMIN_KEY, Program, environment, running

pytestmark = [pytest.mark.servers, pytest.mark.processes]

DOCUMENT = Path(__file__).parent.parent / "docs" / "api.md"


def test_every_example_of_the_api_works_as_it_is_written(redis_url: str, postgres_url: str, tmp_path: Path) -> None:
    for tool in ("bash", "curl", "jq"):
        if shutil.which(tool) is None:
            missing(f"the examples need {tool}")
    blocks = re.findall(r"^```sh\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) > 10
    program = Program(tmp_path, "serve", environ=environment(None, redis_url, postgres_url))
    with running(program):
        done = subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", "\n".join(blocks)],
            env={"PATH": os.environ["PATH"], "TOCSIN": program.url, "KEY": ADMIN_KEY},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert program.stop() == 0
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{program.log.read_text()}"
