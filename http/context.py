"""What the handlers stand on; app.py makes one for a process."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from prometheus_client import CollectorRegistry

from tocsin.actors.alerts import Alerts
from tocsin.channels import twilio
from tocsin.channels.sandbox.outbox import Outbox
from tocsin.domain.delivery import Channel
from tocsin.domain.rate import Rate
from tocsin.domain.settings import Settings
from tocsin.http.auth import Authenticator
from tocsin.http.known import Known
from tocsin.storage import users
from tocsin.storage.store import Store


@dataclass(frozen=True, slots=True)
class Carrier:
    """Who carries a channel here, and whether it can: a channel without credentials is not configured."""

    provider: str
    configured: bool
    receipts: bool = False
    """Whether it tells of each message afterwards, as it is set up here."""
    rate: Rate | None = None
    """How much it is given; None without a limit."""


@dataclass(frozen=True)
class Context:
    """Settings, storage and what this process knows of the rest. Lives as long as its event loop."""

    settings: Settings
    store: Store
    registry: CollectorRegistry
    """Everything shown at /metrics; gauges of storage are registered by whoever made it."""
    carriers: Mapping[Channel, Carrier] = field(default_factory=dict)
    outbox: Outbox | None = None
    """What the sandbox's servers received; None without --sandbox."""
    refresh: Callable[[], Awaitable[None]] | None = None
    """Brings the gauges of storage up to date before they are shown. Raises RedisAway."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process ends, so that open streams end with it."""

    @cached_property
    def twilio_auth_token(self) -> str | None:
        """What Twilio signs its callbacks with; None where SMS is not configured."""
        return self.settings.provider_settings(twilio.SECTION, twilio.TwilioSettings).auth_token

    def provider_of(self, channel: Channel) -> str | None:
        """The name shown for who carries a channel."""
        carrier = self.carriers.get(channel)
        return carrier.provider if carrier else None

    @cached_property
    def authenticator(self) -> Authenticator:
        return Authenticator(self.settings, self.store)

    @cached_property
    def alerts(self) -> Alerts:
        return Alerts(self.store, self.registry)

    @cached_property
    def known_users(self) -> Known:
        return Known(self.store, users.known)
