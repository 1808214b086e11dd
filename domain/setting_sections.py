"""The tables of settings.toml, each as a type. settings.py puts them together.

No field has a default here: settings.toml has them all. Durations are milliseconds, sizes bytes, and "not set" is None.
"""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from tocsin.domain.delivery import Channel
from tocsin.domain.periods import Period
from tocsin.domain.plan import Priority, Strategy
from tocsin.domain.units import DurationMs, SizeBytes

QUEUE_THREADS: Final = ("fan_out", "route", "push", "sms", "email", "persist")
"""The queues whose threads can be set."""

_JWT_SECRET_BYTES: Final = 32
_ADMIN_KEY_CHARACTERS: Final = 16
_WEBHOOK_SECRET_BYTES: Final = 24


def _none_if_empty(value: Any) -> Any:
    return None if value == "" else value


def _from_json(value: Any) -> Any:
    """An environment variable can hold a list only as JSON."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError('write a list as JSON, such as ["IN_APP", "EMAIL"]') from None


_EmptyIsNone: Final = BeforeValidator(_none_if_empty)


def _starts_with(*schemes: str) -> AfterValidator:
    def check(value: str | None) -> str | None:
        if value is not None and not value.startswith(schemes):
            raise ValueError(f"an address begins with {' or '.join(schemes)}")
        return value

    return AfterValidator(check)


def _at_least(count: int, unit: str) -> AfterValidator:
    def check(value: str | None) -> str | None:
        if value is not None and len(value.encode()) < count:
            raise ValueError(f"it is too easy to guess; give at least {count} random {unit}")
        return value

    return AfterValidator(check)


_Text = Annotated[str | None, _EmptyIsNone]
_Secret = Annotated[str | None, _EmptyIsNone, Field(repr=False)]
AsJson: Final = BeforeValidator(_from_json)
_Count = Annotated[int, Field(ge=1)]
_Share = Annotated[float, Field(gt=0, le=1)]
_RedisUrl = Annotated[_Secret, _starts_with("redis://", "rediss://", "unix://")]
_PostgresUrl = Annotated[_Secret, _starts_with("postgresql://", "postgres://")]
_WebUrl = Annotated[_Text, _starts_with("https://", "http://"), AfterValidator(lambda url: url and url.rstrip("/"))]


class Section(BaseModel):
    # Wrong values are never shown: one of them could be a secret in the wrong place.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class RedisSettings(Section):
    """`url` None: app.py runs an own Redis and puts its address here."""

    url: _RedisUrl
    namespace: str = Field(min_length=1, pattern=r"^[^\s*?\[\]]+$")
    inbox_prefix: str = Field(min_length=1, pattern=r"^[^\s*?\[\]]+$")
    max_memory_share: _Share
    plan_memory_share: _Share
    claim_memory_share: _Share
    max_memory: Annotated[SizeBytes | None, _EmptyIsNone]
    plan_journal: SizeBytes
    max_journal: SizeBytes


class PostgresSettings(Section):
    """`url` None: app.py runs an own Postgres and puts its address here."""

    url: _PostgresUrl
    pool: _Count
    connect_timeout: DurationMs
    statement_timeout: DurationMs
    partition: Period


class DataSettings(Section):
    """Where Tocsin keeps what it runs itself."""

    dir: Path


class HttpSettings(Section):
    """The server's address and limits."""

    host: str = Field(min_length=1)
    port: int = Field(ge=0, le=65535)
    public_url: _WebUrl
    max_body: SizeBytes
    shutdown: DurationMs


class AuthSettings(Section):
    """Who may come in."""

    admin_key: Annotated[_Secret, _at_least(_ADMIN_KEY_CHARACTERS, "characters")]
    jwt_secret: Annotated[_Secret, _at_least(_JWT_SECRET_BYTES, "bytes")]
    jwt_public_key: _Text
    jwt_audience: _Text
    jwt_issuer: _Text
    user_token_ttl: DurationMs


class CacheSettings(Section):
    """The inbox lists in Redis (F5)."""

    enabled: bool
    ttl: DurationMs


class EscalationSettings(Section):
    """The times of the policy `default` (S2)."""

    sms_after: DurationMs
    email_after: DurationMs


class PolicyStep(Section):
    """One step of a policy, as it is written."""

    channel: Channel
    after: DurationMs


class TypeDefaults(Section):
    """What an event of a type takes where the call says nothing (E1)."""

    channels: Annotated[tuple[Channel, ...], AsJson, Field(min_length=1)]
    strategy: Annotated[Strategy | None, _EmptyIsNone]
    priority: Priority
    mandatory: bool
    admin_only: bool


class ActorSettings(Section):
    """`threads` by queue: fan_out, route, push, sms, email, persist."""

    threads: dict[str, _Count]
    lease: DurationMs = Field(ge=1000)
    shutdown: DurationMs


class RetrySettings(Section):
    """How often and how patiently a delivery is tried (S8)."""

    attempts: _Count
    base: DurationMs
    cap: DurationMs
    jitter: float = Field(ge=0, le=1)


class BreakerSettings(Section):
    """When a provider that is down rests (S8)."""

    failures: int = Field(ge=0)
    rest: DurationMs = Field(ge=1)
    cap: DurationMs
    successes: _Count


OnUncertain = Literal["resend", "hold"]


class _ChannelSection(Section):
    """A channel's own settings, and beside them a table for each provider, which that provider's file validates."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, dict[str, Any]] = Field(init=False, repr=False)

    on_uncertain: OnUncertain

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        # The providers' tables hold secrets, and only their own models know which.
        return ((name, value) for name, value in super().__repr_args__() if name in type(self).model_fields)


class EmailSettings(_ChannelSection):
    """What all mail has in common."""

    brand: str
    postal_address: _Text


class PushSettings(_ChannelSection):
    """What all push has in common."""

    max_characters: int = Field(ge=1, le=1000)


class SmsSettings(_ChannelSection):
    """What all SMS have in common. `emoji` holds only the priorities that have one."""

    max_segments: int = Field(ge=1, le=10)
    emoji: Annotated[dict[Priority, str], AfterValidator(lambda given: {k: v for k, v in given.items() if v})]


def _is_webhook_secret(value: str | None) -> str | None:
    """Standard Webhooks' form. Raises ValueError."""
    try:
        if value is None or len(base64.b64decode(value.removeprefix("whsec_"), validate=True)) >= _WEBHOOK_SECRET_BYTES:
            return value
    except ValueError:
        pass
    raise ValueError(f'write "whsec_" and at least {_WEBHOOK_SECRET_BYTES} random bytes in base64') from None


class UncertainSettings(Section):
    """When providers are asked what became of deliveries in doubt."""

    first_after: DurationMs
    receipt_after: DurationMs
    again_after: DurationMs = Field(ge=1)
    give_up_after: DurationMs
    every: DurationMs = Field(ge=1000)
    most: _Count


class AlertSettings(Section):
    """Who is told when something is wrong."""

    webhook_url: _WebUrl
    webhook_secret: Annotated[_Secret, AfterValidator(_is_webhook_secret)]
    every: DurationMs


class ReconcileSettings(Section):
    """Reconciliation (R6) and the look at what is due soon (R7)."""

    every: DurationMs = Field(ge=1000)
    repair: bool
    limit: DurationMs = Field(ge=1000)
    wait: DurationMs
    margin: DurationMs
    keep: DurationMs
    alert_difference: _Count
    alert_duplicates: _Count
    preflight_from: DurationMs
    preflight_to: DurationMs


class LimitSettings(Section):
    """How much one request may hold."""

    recipients: _Count
    message: _Count
    title: _Count
    bulk: _Count
    metadata: SizeBytes
    members: _Count
    users: _Count
    attributes: SizeBytes


class LogSettings(Section):
    """What is logged and how."""

    level: Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"]
    format: Literal["auto", "json", "text"]


class MetricsSettings(Section):
    """Who sees /metrics, and where a process without HTTP shows them."""

    public: bool
    port: Annotated[Annotated[int, Field(ge=0, le=65535)] | None, _EmptyIsNone]


class SandboxSettings(Section):
    """Whether servers of our own stand in for the providers (C8)."""

    enabled: bool
