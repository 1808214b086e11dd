"""Finds the providers and makes a sender for each channel. A new provider is one new module here with a `PROVIDER`."""

import pkgutil
from collections.abc import Iterable
from importlib import import_module
from typing import Protocol, TypeVar

from tocsin import channels
from tocsin.channels.contract import BuildContext, Provider, ProviderTable, Sender
from tocsin.domain.delivery import Channel
from tocsin.domain.errors import SettingError
from tocsin.domain.settings import Settings

Table = TypeVar("Table", bound=ProviderTable)


class Tables(Protocol):
    """Where the providers' tables come from: `domain.settings.Settings`."""

    def provider_settings(self, section: str, model: type[Table]) -> Table:
        """The table at `section`, such as "sms.twilio", as its own type. Raises SettingError."""
        ...

    def provider_sections(self) -> tuple[str, ...]:
        """The tables that are there, such as "sms.twilio"."""
        ...


def find_providers() -> tuple[Provider, ...]:
    """Every provider in this package, by name. A module that cannot be imported stops the search: an error that is
    swallowed here would be a channel that is missing without a word."""
    names = sorted(module.name for module in pkgutil.iter_modules(channels.__path__) if not module.ispkg)
    modules = [import_module(f"{channels.__name__}.{name}") for name in names]
    found = (getattr(module, "PROVIDER", None) for module in modules)
    return tuple(provider for provider in found if isinstance(provider, Provider))


def context_of(settings: Settings, *, sandbox: bool) -> BuildContext:
    """What providers are told beside their own tables."""
    return BuildContext(
        sandbox=sandbox,
        public_url=settings.http.public_url,
        brand=settings.email.brand,
        postal_address=settings.email.postal_address,
        emoji=settings.sms.emoji,
        max_segments=settings.sms.max_segments,
        push_characters=settings.push.max_characters,
    )


def build_senders(
    settings: Tables, context: BuildContext, providers: Iterable[Provider] | None = None
) -> dict[Channel, Sender]:
    """The sender of each channel that has a provider: the one that is configured. Must be called in the event loop
    that will send. Raises SettingError with the setting's name and the mend."""
    if providers is None:
        providers = find_providers()
        _refuse_unknown_tables(settings, providers)
    senders: dict[Channel, Sender] = {}
    for provider in providers:
        sender = provider.build(settings.provider_settings(provider.section, provider.settings), context)
        known = senders.get(sender.channel)
        if known is not None and known.configured and sender.configured:
            raise SettingError(f"{provider.section}: {known.provider} is configured for this channel too; unset one")
        if known is None or sender.configured:
            senders[sender.channel] = sender
    return senders


def _refuse_unknown_tables(settings: Tables, providers: Iterable[Provider]) -> None:
    known = sorted(provider.section for provider in providers)
    for section in settings.provider_sections():
        if section not in known:
            raise SettingError(f"{section}: there is no such provider; there are {', '.join(known)}")
