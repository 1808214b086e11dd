"""Settings: every one documented and read, each overridable, a wrong one refused with its name and the mend (D3)."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.settings_page import documented, page
from tocsin.channels.contract import BuildContext
from tocsin.channels.registry import build_senders, find_providers
from tocsin.domain.delivery import Channel
from tocsin.domain.errors import SettingError
from tocsin.domain.plan import Priority, Step, Strategy
from tocsin.domain.setting_sources import KNOWN_NAMES
from tocsin.domain.settings import Settings, load

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "settings.toml").read_text()
FLOORS = ("domain", "channels", "storage", "actors", "http", "cli")

PEM = "-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----\n"


def refusal(environ: dict[str, str], path: Path | None = None) -> str:
    with pytest.raises(SettingError) as refused:
        load(environ, path)
    return str(refused.value)


def leaves(tree: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(tree, dict):
        for key, inner in tree.items():
            yield from leaves(inner, (*path, key))
    else:
        yield path


ALL = [".".join(path) for path in leaves(tomllib.loads(TEXT))]


def accesses() -> set[str]:
    """Every "object.attribute" of our code but settings' own; of the object, its last name without underscores."""
    found = set()
    for file in [ROOT / "app.py", *(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))]:
        if file.name.startswith("setting_sections"):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute):
                found.add(f"{ast.unparse(node.value).rpartition('.')[2].strip('_')}.{node.attr}")
    return found


def test_every_setting_has_a_comment_and_the_page_is_made_of_them() -> None:
    listed = documented(TEXT)
    assert [setting.path.replace('"', "") for setting in listed] == ALL
    assert [setting.path for setting in listed if not setting.comment] == []
    assert (ROOT / "docs" / "settings.md").read_text() == page(TEXT), "run `make docs`"


def test_every_setting_is_read_somewhere() -> None:
    read = accesses()
    unread = []
    for path in ALL:
        table, _, name = path.rpartition(".")
        section = table.rpartition(".")[2]
        if table in {"policies", "sms.emoji", "actors.threads"}:
            # The keys are data; the table is read as a whole.
            section, name = table.split(".")[0], section
        holders = {"defaults"} if table.startswith("types.") else {section, "section", "settings", "self"}
        if not {f"{holder}.{name}" for holder in holders} & read:
            unread.append(path)
    assert unread == []


def test_a_table_of_no_provider_is_refused() -> None:
    context = BuildContext(sandbox=False, public_url=None, brand="", postal_address=None, emoji={})
    with pytest.raises(SettingError, match=r"sms\.twillio: there is no such provider; there are .*sms\.twilio"):
        build_senders(load({"TOCSIN_SMS__TWILLIO__TIMEOUT": "3s"}), context)


def test_a_providers_table_and_its_own_model_say_the_same() -> None:
    shipped = tomllib.loads(TEXT)
    for provider in find_providers():
        channel, name = provider.section.split(".")
        table = shipped[channel][name]
        assert set(table) == set(provider.settings.model_fields), provider.section
        assert load({}).provider_settings(provider.section, provider.settings) == provider.settings()


def test_the_names_that_operators_know_are_documented_beside_what_they_set() -> None:
    named = {name: setting.path for setting in documented(TEXT) for name in re.findall(r"[A-Z_]{5,}", setting.names)}
    assert named == dict(KNOWN_NAMES)


def test_defaults_are_those_of_the_design() -> None:
    settings = load({})
    assert (settings.http.host, settings.http.port) == ("127.0.0.1", 8000)
    assert settings.redis.url is None
    assert settings.cache.ttl == 7 * 86_400_000
    assert settings.policy("default").steps == (
        Step(Channel.IN_APP, 0),
        Step(Channel.PUSH, 0),
        Step(Channel.SMS, 600_000),
        Step(Channel.EMAIL, 2_400_000),
    )
    assert settings.policy("no such") is None


@pytest.mark.parametrize(
    ("name", "value", "look", "expected"),
    [
        ("TOCSIN_HTTP__PORT", "9000", lambda s: s.http.port, 9000),
        ("TOCSIN_RETRY__BASE", "250ms", lambda s: s.retry.base, 250),
        ("TOCSIN_LIMITS__METADATA", "2KB", lambda s: s.limits.metadata, 2048),
        ("TOCSIN_REDIS__MAX_MEMORY", "600MB", lambda s: s.redis.max_memory, 600 * 1024**2),
        ("TOCSIN_METRICS__PUBLIC", "false", lambda s: s.metrics.public, False),
        ("TOCSIN_ACTORS__THREADS__SMS", "3", lambda s: s.actors.threads["sms"], 3),
        ("TOCSIN_SMS__EMOJI__CRITICAL", "🚨", lambda s: s.sms.emoji, {Priority.CRITICAL: "🚨"}),
        ("TOCSIN_SMS__TWILIO__TIMEOUT", "5s", lambda s: s.provider_table("sms.twilio")["timeout"], "5s"),
        ("TOCSIN_TYPES__DEFAULT__CHANNELS", '["SMS"]', lambda s: s.type_defaults("a.b").channels, (Channel.SMS,)),
        ("TOCSIN_POLICIES__X", '[{"channel":"SMS","after":"1s"}]', lambda s: s.policy("x").steps[0].after_ms, 1000),
        ("TOCSIN_TYPES__EVENT_APPROVAL__PRIORITY", "LOW", lambda s: s.type_defaults("EVENT_APPROVAL").priority, "LOW"),
        ("NOTIFICATION_CACHE", "off", lambda s: s.cache.enabled, False),
        ("NOTIFICATION_CACHE_TTL_SECONDS", "60", lambda s: s.cache.ttl, 60_000),
        ("DELIVERY_STATUS_DATABASE_URL", "postgresql://db/x", lambda s: s.postgres.url, "postgresql://db/x"),
        ("SEND_FROM_EMAIL", "a@example.org", lambda s: s.provider_table("email.smtp")["from_email"], "a@example.org"),
        ("TWILIO_PHONE_NUMBER", "+1", lambda s: s.provider_table("sms.twilio")["from_number"], "+1"),
        ("TOCSIN_ADMIN_KEY", "0123456789abcdef", lambda s: s.auth.admin_key, "0123456789abcdef"),
    ],
)  # fmt: skip
def test_the_environment_sets(name: str, value: str, look: object, expected: object) -> None:
    assert callable(look)
    assert look(load({name: value})) == expected


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"TOCSIN_HTTP__PROT": "1"}, r"http\.prot \(TOCSIN_HTTP__PROT\): there is no such.*TOCSIN_HTTP__PORT\?"),
        ({"TOCSIN_HTTP_PORT": "1"}, r"TOCSIN_HTTP_PORT: there is no such.*TOCSIN_HTTP__PORT\?"),
        ({"TOCSIN_HTTP__PORT__X": "1"}, r"http\.port"),
        ({"TOCSIN_HTTP__PORT": "70000"}, r"http\.port \(TOCSIN_HTTP__PORT\): should be less than or equal to 65535"),
        ({"TOCSIN_RETRY__BASE": "30"}, r"retry\.base.*\"30s\""),
        ({"TOCSIN_HTTP__MAX_BODY": "big"}, r"http\.max_body.*\"600MB\""),
        ({"TOCSIN_RETRY__BASE": "1h"}, r"retry\.cap: it is shorter than retry\.base"),
        ({"WS_PORT": "8080"}, r"WS_PORT: use http\.port"),
        ({"REDIS_URL": "localhost:6379"}, r"redis\.url \(REDIS_URL\): an address begins with redis://"),
        ({"DATABASE_URL": "postgres://a", "DELIVERY_STATUS_DATABASE_URL": "postgres://b"}, "keep one of the two"),
        ({"SENDER_EMAIL": "a@b.org", "SEND_FROM_EMAIL": "c@b.org"}, "keep one of the two"),
        ({"NOTIFICATION_CACHE_TTL_SECONDS": "1h"}, "whole number of seconds"),
        ({"TOCSIN_SMS__MAX_SEGMENT": "2"}, r"did you mean TOCSIN_SMS__MAX_SEGMENTS\?"),
        ({"TOCSIN_HTP__PORT": "1"}, r"htp\.port \(TOCSIN_HTP__PORT\): .*did you mean TOCSIN_HTTP__PORT\?"),
        ({"TOCSIN_PORT": "9000"}, r"TOCSIN_PORT: there is no such setting; did you mean TOCSIN_HTTP__PORT\?"),
        ({"TOCSIN_ACTORS__THREADS__MAIL": "2"}, r"actors\.threads\.mail: there is no such queue"),
        ({"TOCSIN_POLICIES__X": "[]"}, r"policies\.x"),
        ({"TOCSIN_POLICIES__X": "EMAIL"}, r"policies\.x.*as JSON"),
        ({"TOCSIN_POLICIES__X": '[{"channel":"FAX","after":"0s"}]'}, r"policies\.x\.0\.channel.*'EMAIL'"),
        ({"TOCSIN_AUTH__JWT_SECRET": "short"}, r"auth\.jwt_secret.*at least 32"),
        ({"TOCSIN_ADMIN_KEY": "admin"}, r"auth\.admin_key \(TOCSIN_ADMIN_KEY\).*at least 16"),
        ({"SMTP_PASS": "x", "SMTP_PASS_FILE": "/x"}, "SMTP_PASS: it is set, and SMTP_PASS_FILE too"),
        ({"SMTP_PASS_FILE": "/no/such"}, "SMTP_PASS_FILE: the file cannot be read"),
        ({"TOCSIN_EMAIL__SMTP": "x"}, r"email\.smtp"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_name_and_the_mend(environ: dict[str, str], said: str) -> None:
    assert re.search(said, refusal(environ))


def test_several_wrong_settings_are_told_at_once() -> None:
    told = refusal({"TOCSIN_HTTP__PORT": "x", "TOCSIN_LOG__LEVEL": "LOUD"})
    assert "http.port" in told
    assert "log.level" in told


def test_no_refusal_shows_the_value() -> None:
    secret = "hunter2hunter2"
    for name in ("TOCSIN_HTTP__PORT", "TOCSIN_AUTH__JWT_SECRET", "REDIS_URL", "TOCSIN_SMS__EMOJI", "TOCSIN_X__Y"):
        assert secret not in refusal({name: secret})


def test_settings_do_not_show_secrets() -> None:
    secret = "hunter2" * 6
    names = ("TOCSIN_AUTH__JWT_SECRET", "TOCSIN_ADMIN_KEY", "SMTP_PASS", "TWILIO_AUTH_TOKEN", "FIREBASE_PRIVATE_KEY")
    shown = repr(load(dict.fromkeys(names, secret) | {"REDIS_URL": f"redis://:{secret}@h"}))
    assert secret not in shown


def test_sentry_is_said_to_do_nothing_and_does_not_stop_the_start() -> None:
    assert load({}).notices == ()
    (notice,) = load({"SENTRY_DSN": "https://x@sentry.example/1"}).notices
    assert notice.startswith("SENTRY_DSN has no effect")


def test_what_kubernetes_sets_for_a_service_called_tocsin_is_not_ours() -> None:
    address = "tcp://10.0.0.1:8000"
    names = ("TOCSIN_PORT", "TOCSIN_SERVICE_HOST", "TOCSIN_SERVICE_PORT_HTTP", "TOCSIN_PORT_8000_TCP_ADDR")
    assert load(dict.fromkeys(names, address)) == load({})


def test_a_secret_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "pass").write_text("s3cret\n")
    settings = load({"SMTP_PASS_FILE": str(tmp_path / "pass"), "TOCSIN_REDIS__NAMESPACE_FILE": str(tmp_path / "pass")})
    assert settings.provider_table("email.smtp")["password"] == "s3cret"
    assert settings.redis.namespace == "s3cret"


def test_a_setting_whose_own_name_ends_so_is_no_file_that_holds_a_value(tmp_path: Path) -> None:
    assert load({"TOCSIN_EMAIL__SMTP__CA_FILE": "/ca.pem"}).provider_table("email.smtp")["ca_file"] == "/ca.pem"
    (tmp_path / "where").write_text("/other.pem\n")
    told = load({"TOCSIN_EMAIL__SMTP__CA_FILE_FILE": str(tmp_path / "where")})
    assert told.provider_table("email.smtp")["ca_file"] == "/other.pem"


def test_a_private_key_may_hold_written_line_ends() -> None:
    settings = load({"FIREBASE_PRIVATE_KEY": PEM.replace("\n", "\\n")})
    assert settings.provider_table("push.fcm")["private_key"] == PEM


def test_ours_goes_before_a_known_name_and_an_empty_known_name_is_not_set() -> None:
    assert load({"REDIS_URL": "redis://a", "TOCSIN_REDIS__URL": "redis://b"}).redis.url == "redis://b"
    assert load({"REDIS_URL": "", "DATABASE_URL": "", "SMTP_PORT": ""}) == load({})


class TestAFileOfTheOperatorsOwn:
    def test_holds_only_what_differs(self, tmp_path: Path) -> None:
        own = tmp_path / "own.toml"
        own.write_text(
            '[http]\nport = 9000\n[types.EVENT_APPROVAL]\npriority = "LOW"\n[types."match.start"]\nmandatory = true\n'
        )
        for settings in (load({}, own), load({"TOCSIN_SETTINGS": str(own)})):
            assert (settings.http.port, settings.http.host) == (9000, "127.0.0.1")
            approval = settings.type_defaults("event.approval")
            assert (approval.priority, approval.strategy) == (Priority.LOW, Strategy.BROADCAST)
            match = settings.type_defaults("MATCH_START")
            assert (match.mandatory, match.priority, match.channels) == (True, Priority.MEDIUM, tuple(Channel))

    def test_gives_way_to_the_environment(self, tmp_path: Path) -> None:
        own = tmp_path / "own.toml"
        own.write_text("[http]\nport = 9000\n")
        assert load({"TOCSIN_HTTP__PORT": "9001"}, own).http.port == 9001

    def test_is_named_when_it_is_wrong(self, tmp_path: Path) -> None:
        own = tmp_path / "own.toml"
        own.write_text("[htpt]\nport = 1\n[retry]\natempts = 2\nbase = 3\n")
        told = refusal({}, own)
        assert re.search(rf"retry\.atempts \({own}\): there is no such setting; did you mean retry\.attempts\?", told)
        assert re.search(rf"retry\.base \({own}\)", told)
        assert "htpt" in told
        own.write_text("[http\n")
        assert "it is not TOML" in refusal({}, own)
        assert "cannot be read" in refusal({}, tmp_path / "none.toml")


def test_values_can_be_changed_by_path() -> None:
    settings: Settings = load({}).with_values(
        {"retry.base": "1s", "redis.url": "unix:///tmp/r.sock", "sandbox.enabled": True}
    )
    assert (settings.retry.base, settings.redis.url, settings.sandbox.enabled) == (1000, "unix:///tmp/r.sock", True)
    with pytest.raises(SettingError, match=r"retry\.bse"):
        settings.with_values({"retry.bse": "1s"})
