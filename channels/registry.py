"""Finds the providers and makes a sender for each channel. A new provider is one new module here with a `PROVIDER`."""

import pkgutil
from collections.abc import Iterable
from importlib import import_module
from typing import Protocol, TypeVar

from tocsin import channels
from tocsin.channels.contract import BuildContext, Provider, ProviderTable, Sender
from tocsin.domain.delivery import Channel
from tocsin.domain.errors import SettingError

Table = TypeVar("Table", bound=ProviderTable)


class Tables(Protocol):
    """Where the providers' tables come from: `domain.settings.Settings`."""

    def provider_settings(self, section: str, model: type[Table]) -> Table:
        """The table at `section`, such as "sms.twilio", as its own type. Raises SettingError."""
        ...


def find_providers() -> tuple[Provider, ...]:
    """Every provider in this package, by name. A module that cannot be imported stops the search: an error that is
    swallowed here would be a channel that is missing without a word."""
    names = sorted(module.name for module in pkgutil.iter_modules(channels.__path__) if not module.ispkg)
    modules = [import_module(f"{channels.__name__}.{name}") for name in names]
    found = (getattr(module, "PROVIDER", None) for module in modules)
    return tuple(provider for provider in found if isinstance(provider, Provider))


def build_senders(
    settings: Tables, context: BuildContext, providers: Iterable[Provider] | None = None
) -> dict[Channel, Sender]:
    """The sender of each channel that has a provider: the one that is configured. Must be called in the event loop
    that will send. Raises SettingError with the setting's name and the mend."""
    senders: dict[Channel, Sender] = {}
    for provider in find_providers() if providers is None else providers:
        sender = provider.build(settings.provider_settings(provider.section, provider.settings), context)
        known = senders.get(sender.channel)
        if known is not None and known.configured and sender.configured:
            raise SettingError(f"{provider.section}: {known.provider} is configured for this channel too; unset one")
        if known is None or sender.configured:
            senders[sender.channel] = sender
    return senders
