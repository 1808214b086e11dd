"""What the doctor says of servers and secrets in each state."""

import os
from pathlib import Path

import pytest

from tocsin.cli.check_postgres import judge_postgres
from tocsin.cli.check_redis import judge_redis
from tocsin.cli.check_secrets import check_secret_files
from tocsin.cli.findings import Finding, Level, age_of_secret
from tocsin.storage.postgres_check import PostgresState
from tocsin.storage.redis_check import RedisState

DAY_MS = 86_400_000
NOW_MS = 1_795_000_000_000


def a_redis(**given: object) -> RedisState:
    state = {"version": "7.2.4", "aof": True, "fsync": "everysec", "eviction": "noeviction"}
    state |= {"max_memory": 100_000_000, "used_memory": 1_000_000, "writable": True}  # type: ignore[dict-item]
    return RedisState(**(state | given))  # type: ignore[arg-type]


def a_postgres(**given: object) -> PostgresState:
    state: dict[str, object] = {"version": "18.1", "writable": True, "keys": (), "bad_facts": 0}
    return PostgresState(**(state | given))  # type: ignore[arg-type]


def levels(found: list[Finding]) -> set[Level]:
    return {finding.level for finding in found}


def test_a_redis_that_keeps_everything_is_all_right() -> None:
    assert levels(list(judge_redis(a_redis()))) == {Level.OK}


@pytest.mark.parametrize(
    ("state", "level", "mend"),
    [
        ({"aof": False}, Level.WARN, "appendonly yes"),
        ({"fsync": "no"}, Level.WARN, "appendfsync everysec"),
        ({"eviction": "allkeys-lru"}, Level.FAIL, "noeviction"),
        ({"max_memory": 0}, Level.WARN, "maxmemory"),
        ({"writable": False}, Level.FAIL, "primary"),
    ],
)
def test_a_redis_that_would_lose_something_is_named_with_the_mend(
    state: dict[str, object], level: Level, mend: str
) -> None:
    (finding,) = [each for each in judge_redis(a_redis(**state)) if each.level is not Level.OK]
    assert finding.level is level
    assert mend in finding.mend


def test_a_hosted_redis_that_hides_its_settings_is_no_fault() -> None:
    assert levels(list(judge_redis(a_redis(fsync=None)))) == {Level.OK}


def test_a_postgres_with_its_schema_is_all_right() -> None:
    assert levels(list(judge_postgres(a_postgres(), [], NOW_MS))) == {Level.OK}


def test_a_schema_that_is_behind_fails_and_names_what_is_missing() -> None:
    (finding,) = [each for each in judge_postgres(a_postgres(), ["0002_more.sql"], NOW_MS) if each.level is Level.FAIL]
    assert "0002_more.sql" in finding.told
    assert "tocsin migrate" in finding.mend


def test_facts_that_were_refused_are_named() -> None:
    found = [each for each in judge_postgres(a_postgres(bad_facts=3), [], NOW_MS) if each.level is Level.WARN]
    assert [each.told for each in found] == ["3 facts were refused as data"]


def test_an_api_key_older_than_ninety_days_is_named() -> None:
    keys = (("shop", NOW_MS - 91 * DAY_MS), ("blog", NOW_MS - 3 * DAY_MS))
    (finding,) = [each for each in judge_postgres(a_postgres(keys=keys), [], NOW_MS) if each.level is Level.WARN]
    assert finding.told == "API key 'shop' is 91 days old"


@pytest.mark.parametrize(("days", "level"), [(0, Level.OK), (90, Level.OK), (91, Level.WARN)])
def test_a_secret_is_old_after_ninety_days(days: int, level: Level) -> None:
    assert age_of_secret("it", NOW_MS - days * DAY_MS, NOW_MS).level is level


def a_secret_file(folder: Path, *, days: int, mode: int = 0o600) -> Path:
    path = folder / "password"
    path.write_text("never shown")
    path.chmod(mode)
    then_s = (NOW_MS - days * DAY_MS) / 1000
    os.utime(path, (then_s, then_s))
    return path


def test_a_secret_from_a_file_is_as_old_as_the_file(tmp_path: Path) -> None:
    environ = {"SMTP_PASS_FILE": str(a_secret_file(tmp_path, days=100)), "OTHER_FILE": "/nowhere", "HOME": "/root"}
    environ["TOCSIN_EMAIL__SMTP__CA_FILE"] = "/etc/ssl/cert.pem"
    (finding,) = check_secret_files(environ, tmp_path / "data", NOW_MS)
    assert (finding.level, finding.told) == (Level.WARN, "SMTP_PASS_FILE is 100 days old")


def test_a_secret_that_everybody_can_read_is_named(tmp_path: Path) -> None:
    environ = {"SMTP_PASS_FILE": str(a_secret_file(tmp_path, days=1, mode=0o644))}
    found = list(check_secret_files(environ, tmp_path / "data", NOW_MS))
    assert [finding.level for finding in found] == [Level.OK, Level.WARN]
    assert "chmod 600" in found[1].mend


def test_the_key_that_serve_made_itself_has_an_age_too(tmp_path: Path) -> None:
    a_secret_file(tmp_path, days=100).rename(tmp_path / "admin_key")
    (finding,) = check_secret_files({}, tmp_path, NOW_MS)
    assert "admin_key is 100 days old" in finding.told


def test_no_finding_shows_a_secret(tmp_path: Path) -> None:
    environ = {"SMTP_PASS_FILE": str(a_secret_file(tmp_path, days=100, mode=0o644))}
    found = list(check_secret_files(environ, tmp_path, NOW_MS))
    assert "never shown" not in " ".join(finding.told + finding.mend for finding in found)
