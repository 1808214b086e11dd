"""Providers are found by being there, and nothing about them is known elsewhere."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from pydantic import ConfigDict

from tocsin.channels.contract import BuildContext, Message, Outcome, Provider, ProviderTable, Sender
from tocsin.channels.registry import build_senders, context_of, find_providers
from tocsin.channels.unconfigured import Unconfigured
from tocsin.domain.delivery import Channel
from tocsin.domain.errors import SettingError
from tocsin.domain.settings import load

ROOT = Path(__file__).resolve().parent.parent


class AnyTable(ProviderTable):
    model_config = ConfigDict(extra="ignore")


def a_provider(name: str, *, configured: bool) -> Provider:
    def build(_settings: Any, _context: BuildContext) -> Sender:
        sender = Unconfigured(Channel.SMS, name, "nothing")
        sender.configured = configured
        return sender

    return Provider(name, Channel.SMS, "sms.twilio", AnyTable, build)


def python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs `code` in a process of its own, which may change what can be imported."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=60,
        check=False,
    )


def test_the_providers_are_found() -> None:
    found = {(provider.name, provider.channel, provider.section) for provider in find_providers()}
    assert found == {
        ("smtp", Channel.EMAIL, "email.smtp"),
        ("twilio", Channel.SMS, "sms.twilio"),
        ("fcm", Channel.PUSH, "push.fcm"),
    }


async def test_a_channel_has_a_sender_with_the_defaults_and_is_not_configured() -> None:
    settings = load({})
    senders = build_senders(settings, context_of(settings, sandbox=False))
    assert {channel: (sender.provider, sender.configured) for channel, sender in senders.items()} == {
        Channel.EMAIL: ("smtp", False),
        Channel.SMS: ("twilio", False),
        Channel.PUSH: ("fcm", False),
    }


def test_what_providers_are_told_comes_from_the_settings() -> None:
    settings = load({}).with_values({"sms.max_segments": 3, "push.max_characters": 80, "email.brand": "B"})
    context = context_of(settings, sandbox=True)
    assert (context.max_segments, context.push_characters, context.brand, context.sandbox) == (3, 80, "B", True)


NEW_PROVIDER = """
    from dataclasses import dataclass

    from tocsin.channels.contract import Message, Outcome, OutcomeKind, Provider, ProviderTable
    from tocsin.domain.delivery import Channel


    class PigeonTable(ProviderTable):
        loft: str | None = None


    @dataclass
    class Pigeon:
        configured: bool
        channel: Channel = Channel.SMS
        provider: str = "pigeon"
        concurrency: int = 1
        timeout_s: float = 1.0

        async def send(self, message: Message) -> Outcome:
            return Outcome(OutcomeKind.SENT)

        async def check(self) -> None: ...
        async def close(self) -> None: ...


    PROVIDER = Provider("pigeon", Channel.SMS, "sms.pigeon", PigeonTable, lambda table, _: Pigeon(bool(table.loft)))
"""


def test_a_new_provider_is_one_new_file(tmp_path: Path) -> None:
    (tmp_path / "pigeon.py").write_text(textwrap.dedent(NEW_PROVIDER))
    ran = python(
        """
        import tocsin.channels
        tocsin.channels.__path__.append(".")
        from pathlib import Path
        from tocsin.channels.registry import build_senders, context_of, find_providers
        from tocsin.domain.delivery import Channel
        from tocsin.domain.settings import load
        Path("own.toml").write_text('[sms.pigeon]\\nloft = "north"\\n')
        settings = load({}, Path("own.toml"))
        senders = build_senders(settings, context_of(settings, sandbox=False))
        print(sorted(provider.name for provider in find_providers()), senders[Channel.SMS].provider)
        """,
        tmp_path,
    )
    assert ran.stdout.strip() == "['fcm', 'pigeon', 'smtp', 'twilio'] pigeon", ran.stderr


def test_a_provider_that_cannot_be_imported_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import a_package_that_is_not_there\n")
    ran = python(
        """
        import tocsin.channels
        tocsin.channels.__path__.append(".")
        from tocsin.channels.registry import find_providers
        find_providers()
        """,
        tmp_path,
    )
    assert ran.returncode != 0
    assert "a_package_that_is_not_there" in ran.stderr


@pytest.mark.parametrize(
    ("package", "section", "names"),
    [
        ("firebase_admin", "push.fcm", ("project_id", "private_key", "client_email")),
        ("twilio", "sms.twilio", ("account_sid", "auth_token", "from_number")),
    ],
)
def test_without_its_sdk_a_channel_is_not_configured(
    tmp_path: Path, package: str, section: str, names: tuple[str, ...]
) -> None:
    ran = python(
        f"""
        import asyncio, sys
        sys.modules["{package}"] = None
        from tocsin.channels.registry import build_senders, context_of
        from tocsin.domain.settings import load
        settings = load({{}}).with_values({{f"{section}.{{name}}": "x" for name in {names}}})
        senders = build_senders(settings, context_of(settings, sandbox=False))
        (sender,) = [sender for sender in senders.values() if sender.provider in "{section}"]
        outcome = asyncio.run(sender.send(None))
        print(sender.configured, outcome.kind, outcome.reason, outcome.message)
        """,
        tmp_path,
    )
    assert ran.stdout.startswith("False permanent not_configured"), ran.stderr
    assert "not installed" in ran.stdout


def test_no_sdk_is_loaded_before_it_is_used(tmp_path: Path) -> None:
    ran = python(
        """
        import sys
        from tocsin.channels.registry import build_senders, context_of, find_providers
        from tocsin.domain.settings import load
        settings = load({})
        build_senders(settings, context_of(settings, sandbox=False))
        print(sorted({"firebase_admin", "twilio", "requests", "google.auth"} & set(sys.modules)))
        """,
        tmp_path,
    )
    assert ran.stdout.strip() == "[]", ran.stderr


def test_nothing_outside_the_channels_names_a_provider_module() -> None:
    allowed = {"http/callbacks.py", "http/context.py"}
    folders = ("actors", "storage", "domain", "http", "cli")
    texts = {
        str(path.relative_to(ROOT)): path.read_text() for folder in folders for path in (ROOT / folder).rglob("*.py")
    }
    assert {name.partition("/")[0] for name in texts} == set(folders)
    provider = re.compile(r"tocsin\.channels(\.| import )(senders|smtp|fcm|twilio)")
    naming = {name for name, text in texts.items() if provider.search(text)}
    assert naming == allowed


async def test_the_one_that_is_configured_carries_a_channel() -> None:
    settings = load({})
    context = context_of(settings, sandbox=False)
    for order in ((False, True), (True, False)):
        providers = [a_provider(str(configured), configured=configured) for configured in order]
        assert build_senders(settings, context, providers)[Channel.SMS].provider == "True"


async def test_two_that_are_configured_are_refused() -> None:
    settings = load({})
    context = context_of(settings, sandbox=False)
    providers = [a_provider("a", configured=True), a_provider("b", configured=True)]
    with pytest.raises(SettingError, match="a is configured for this channel too"):
        build_senders(settings, context, providers)


async def test_an_unconfigured_sender_keeps_the_contract() -> None:
    sender: Sender = Unconfigured(Channel.SMS, "twilio", "sms.twilio.account_sid: not set")
    message: Message = None  # type: ignore[assignment]
    outcome: Outcome = await sender.send(message)
    assert outcome.message == "sms.twilio.account_sid: not set"
    await sender.close()
