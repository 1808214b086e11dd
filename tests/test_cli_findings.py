"""What the doctor says of servers and secrets in each state."""

import os
from pathlib import Path

import pytest
import redis
from loguru import logger

from tests.program import Program, environment
from tocsin.actors import queues
from tocsin.cli.check_breakers import judge_breakers
from tocsin.cli.check_postgres import judge_postgres
from tocsin.cli.check_redis import judge_actors, judge_installation, judge_redis
from tocsin.cli.check_secrets import check_secret_files
from tocsin.cli.check_start import say
from tocsin.cli.findings import Finding, Level, age_of_secret, clock
from tocsin.domain.delivery import Channel
from tocsin.domain.errors import SettingError
from tocsin.domain.periods import Period, spans
from tocsin.storage import embedded_redis
from tocsin.storage.breakers import Resting
from tocsin.storage.embedded_redis import EmbeddedRedis
from tocsin.storage.keys import Keys
from tocsin.storage.partitions import Partition
from tocsin.storage.postgres_check import PostgresState
from tocsin.storage.redis_check import RedisState, inspect_redis

DAY_MS = 86_400_000
KEYS = Keys("tocsin", "notifications")
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


def test_a_provider_that_rests_is_named_with_its_time() -> None:
    (finding,) = judge_breakers([Resting(Channel.SMS, "twilio", 7, NOW_MS)])
    assert (finding.level, finding.subject) == (Level.WARN, "sms")
    assert finding.told.startswith("twilio rests until 2026-11-18T11:06:40+00:00 after 7 failures")
    assert levels(list(judge_breakers([]))) == {Level.OK}


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


def test_a_postgres_that_is_too_old_stops_the_start() -> None:
    (finding,) = [each for each in judge_postgres(a_postgres(version="14.9"), [], NOW_MS) if each.stops]
    assert "14.9 is too old" in finding.told


def test_a_time_without_a_partition_is_named() -> None:
    known = [Partition("deliveries", f"deliveries_{span.name}", span.start_ms, span.end_ms, 0, 0, ())
             for span in spans(Period.MONTH, NOW_MS)]  # fmt: skip
    assert levels(list(judge_postgres(a_postgres(partitions=tuple(known)), [], NOW_MS))) == {Level.OK}
    state = a_postgres(partitions=tuple(known[:2]), strays=3)
    lacking, strays = (each for each in judge_postgres(state, [], NOW_MS) if each.level is Level.WARN)
    assert "deliveries of 2027_01" in lacking.told
    assert "tocsin migrate" in lacking.mend
    assert "3 rows" in strays.told


def test_an_api_key_older_than_ninety_days_is_named() -> None:
    keys = (("shop", NOW_MS - 91 * DAY_MS), ("blog", NOW_MS - 3 * DAY_MS))
    (finding,) = [each for each in judge_postgres(a_postgres(keys=keys), [], NOW_MS) if each.level is Level.WARN]
    assert finding.told == "API key 'shop' is 91 days old"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"version": "6.0.16"}, "too old"),
        ({"version": "5"}, "too old"),
        ({"cluster": True, "runs_scripts": False}, "cluster"),
        ({"runs_scripts": False}, "Lua"),
    ],
)
def test_a_redis_that_cannot_run_the_scripts_stops_the_start_and_names_the_mend(
    given: dict[str, object], told: str
) -> None:
    (finding,) = [each for each in judge_redis(a_redis(**given)) if each.stops]
    assert told in finding.told
    with pytest.raises(SettingError, match=told) as refused:
        say([finding])
    assert finding.mend in str(refused.value)


@pytest.mark.parametrize(
    ("given", "level"),
    [
        ({"aof": False}, "WARNING"),
        ({"fsync": "no"}, "WARNING"),
        ({"eviction": "allkeys-lru"}, "ERROR"),
        ({"max_memory": 0}, "WARNING"),
        ({"clock_off_ms": -7_000}, "WARNING"),
    ],
)
def test_what_is_dangerous_is_one_line_of_the_log_at_each_start(given: dict[str, object], level: str) -> None:
    lines: list[str] = []
    handler = logger.add(lines.append, format="{level} {message}")
    say(judge_redis(a_redis(**given)))
    logger.remove(handler)
    assert len(lines) == 1
    assert lines[0].startswith(f"{level} redis: ")


def test_a_limit_of_memory_in_the_settings_is_one() -> None:
    assert not [each for each in judge_redis(a_redis(max_memory=0), max_memory=10**9) if each.level is Level.WARN]


@pytest.mark.parametrize(("in_redis", "in_postgres"), [(None, "a"), ("a", None), ("a", "a"), (None, None)])
def test_one_installation_finds_itself(in_redis: str | None, in_postgres: str | None) -> None:
    assert list(judge_installation(in_redis, in_postgres, KEYS)) == []


def test_the_keys_of_another_installation_are_found_out() -> None:
    (finding,) = judge_installation("a", "b", KEYS)
    assert finding.stops
    assert "redis-cli del tocsin:installation" in finding.mend


@pytest.mark.parametrize(
    ("attended", "level", "told"),
    [
        (queues.ALL, Level.OK, "every queue"),
        ((), Level.WARN, "no process runs actors"),
        (("send_sms", "route"), Level.WARN, "fan_out,persist,send_push,send_email"),
    ],
)
def test_a_queue_that_nobody_works_on_is_named(attended: tuple[str, ...], level: Level, told: str) -> None:
    (finding,) = judge_actors(set(attended))
    assert finding.level is level
    assert told in finding.told


@pytest.mark.parametrize(("off_ms", "level"), [(0, Level.OK), (-2_000, Level.OK), (2_001, Level.WARN)])
def test_clocks_that_are_apart_are_found_out(off_ms: int, level: Level) -> None:
    assert clock("redis", "Redis", off_ms).level is level


@pytest.mark.servers
async def test_a_real_redis_says_what_it_is(redis_url: str) -> None:
    state = await inspect_redis(redis_url, KEYS)
    assert (state.cluster, state.runs_scripts, state.installation) == (False, True, None)
    assert abs(state.clock_off_ms) < 1_000
    assert state.release >= (6, 2)


@pytest.mark.servers
async def test_a_redis_in_cluster_mode_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = embedded_redis._configuration
    monkeypatch.setattr(embedded_redis, "_configuration", lambda *given: [*plain(*given), "--cluster-enabled", "yes"])
    monkeypatch.setattr(embedded_redis, "_answers", Path.exists)
    server = EmbeddedRedis(tmp_path)
    try:
        state = await inspect_redis(server.start(), KEYS)
    finally:
        server.stop()
    assert [finding.told for finding in judge_redis(state) if finding.stops and "cluster" in finding.told]


@pytest.mark.servers
async def test_a_user_who_may_not_run_scripts_is_found_out(redis_url: str) -> None:
    operator = redis.Redis.from_url(redis_url)
    operator.acl_setuser("noscripts", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-@scripting"])
    try:
        state = await inspect_redis(redis_url.replace("unix://", "unix://noscripts:x@"), KEYS)
    finally:
        operator.acl_deluser("noscripts")
        operator.close()
    assert not state.runs_scripts


@pytest.mark.servers
@pytest.mark.processes
async def test_a_process_does_not_start_on_the_redis_of_another(
    redis_url: str, postgres_url: str, tmp_path: Path
) -> None:
    operator = redis.Redis.from_url(redis_url)
    operator.set(KEYS.installation, "another")
    operator.close()
    program = Program(tmp_path, "http", environ=environment(None, redis_url, postgres_url)).start()
    assert program.wait(20) == 2
    said = program.log.read_text()
    assert "redis-cli del tocsin:installation" in said
    assert "Traceback" not in said


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
