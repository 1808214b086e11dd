"""A read against a step that is due: once it was answered nothing begins. bench/races.py runs a hundred thousand."""

from pathlib import Path

import pytest

from tocsin.bench import races

pytestmark = pytest.mark.servers


@pytest.mark.parametrize("kind", races.KINDS)
def test_nothing_begins_after_its_read_was_answered(tmp_path: Path, kind: str) -> None:
    score = races.measure(tmp_path, kind, 1_300)
    assert score.races == 1_300
    assert score.broken == []
    # Else it was no race.
    assert score.began > 0
    assert score.never_claimed > 0
