"""Every setting, typed. settings.toml holds the defaults and the comments; `load` is called once, by app.py.

Durations are milliseconds here and sizes bytes, whatever unit they were written in; "not set" is None.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError

from tocsin.domain.delivery import Channel
from tocsin.domain.errors import SettingError
from tocsin.domain.plan import Policy, Priority, Step, Strategy
from tocsin.domain.setting_sources import Sources, explain, normal_type, read_sources
from tocsin.domain.units import DurationMs, SizeBytes

QUEUE_THREADS: Final = ("fan_out", "route", "push", "sms", "email", "persist")
"""The queues whose threads can be set."""

_JWT_SECRET_BYTES: Final = 32
_ADMIN_KEY_CHARACTERS: Final = 16

_Table = TypeVar("_Table", bound=BaseModel)


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
_AsJson: Final = BeforeValidator(_from_json)
_Count = Annotated[int, Field(ge=1)]
_RedisUrl = Annotated[_Secret, _starts_with("redis://", "rediss://", "unix://")]
_PostgresUrl = Annotated[_Secret, _starts_with("postgresql://", "postgres://")]
_WebUrl = Annotated[_Text, _starts_with("https://", "http://"), AfterValidator(lambda url: url and url.rstrip("/"))]


class _Section(BaseModel):
    # Wrong values are never shown: one of them could be a secret in the wrong place.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class RedisSettings(_Section):
    """`url` None: app.py runs an own Redis and puts its address here."""

    url: _RedisUrl
    namespace: str = Field(min_length=1, pattern=r"^[^\s*?\[\]]+$")
    inbox_prefix: str = Field(min_length=1, pattern=r"^[^\s*?\[\]]+$")
    max_memory_share: float = Field(gt=0, le=1)
    max_memory: Annotated[SizeBytes | None, _EmptyIsNone]


class PostgresSettings(_Section):
    """`url` None: app.py runs an own Postgres and puts its address here."""

    url: _PostgresUrl
    pool: _Count
    connect_timeout: DurationMs
    statement_timeout: DurationMs


class DataSettings(_Section):
    """Where Tocsin keeps what it runs itself."""

    dir: Path


class HttpSettings(_Section):
    """The server's address and limits."""

    host: str = Field(min_length=1)
    port: int = Field(ge=0, le=65535)
    public_url: _WebUrl
    max_body: SizeBytes
    shutdown: DurationMs


class AuthSettings(_Section):
    """Who may come in."""

    admin_key: Annotated[_Secret, _at_least(_ADMIN_KEY_CHARACTERS, "characters")]
    jwt_secret: Annotated[_Secret, _at_least(_JWT_SECRET_BYTES, "bytes")]
    jwt_public_key: _Text
    jwt_audience: _Text
    jwt_issuer: _Text
    user_token_ttl: DurationMs


class CacheSettings(_Section):
    """The inbox lists in Redis (F5)."""

    enabled: bool
    ttl: DurationMs


class EscalationSettings(_Section):
    """The times of the policy `default` (S2)."""

    sms_after: DurationMs
    email_after: DurationMs


class PolicyStep(_Section):
    """One step of a policy, as it is written."""

    channel: Channel
    after: DurationMs


class TypeDefaults(_Section):
    """What an event of a type takes where the call says nothing (E1)."""

    channels: Annotated[tuple[Channel, ...], _AsJson, Field(min_length=1)]
    strategy: Annotated[Strategy | None, _EmptyIsNone]
    priority: Priority
    mandatory: bool


class ActorSettings(_Section):
    """`threads` by queue: fan_out, route, push, sms, email, persist."""

    threads: dict[str, _Count]
    lease: DurationMs = Field(ge=1000)
    shutdown: DurationMs


class RetrySettings(_Section):
    """How often and how patiently a delivery is tried (S8)."""

    attempts: _Count
    base: DurationMs
    cap: DurationMs
    jitter: float = Field(ge=0, le=1)


OnUncertain = Literal["resend", "hold"]


class _ChannelSection(_Section):
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


class LimitSettings(_Section):
    """How much one request may hold."""

    recipients: _Count
    message: _Count
    title: _Count
    bulk: _Count
    metadata: SizeBytes


class LogSettings(_Section):
    """What is logged and how."""

    level: Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"]
    format: Literal["auto", "json", "text"]


class MetricsSettings(_Section):
    """Who sees /metrics."""

    public: bool


class SandboxSettings(_Section):
    """Whether servers of our own stand in for the providers (C8)."""

    enabled: bool


class Settings(_Section):
    """All of it. Never changed; `with_values` makes another."""

    redis: RedisSettings
    postgres: PostgresSettings
    data: DataSettings
    http: HttpSettings
    auth: AuthSettings
    cache: CacheSettings
    escalation: EscalationSettings
    policies: dict[str, Annotated[list[PolicyStep], _AsJson, Field(min_length=1)]]
    types: dict[str, TypeDefaults]
    actors: ActorSettings
    retry: RetrySettings
    email: EmailSettings
    push: PushSettings
    sms: SmsSettings
    limits: LimitSettings
    log: LogSettings
    metrics: MetricsSettings
    sandbox: SandboxSettings

    _sources: Sources = PrivateAttr()

    @property
    def notices(self) -> tuple[str, ...]:
        """What the operator should be told at start: settings that were given and have no effect here."""
        return self._sources.notices

    def policy(self, name: str) -> Policy | None:
        """The policy called `name`, its steps in the order of their times. "default" is made of `escalation` unless it
        is given."""
        if name in self.policies:
            steps = [Step(step.channel, step.after) for step in self.policies[name]]
        elif name == "default":
            steps = [
                Step(Channel.IN_APP, 0),
                Step(Channel.PUSH, 0),
                Step(Channel.SMS, self.escalation.sms_after),
                Step(Channel.EMAIL, self.escalation.email_after),
            ]
        else:
            return None
        return Policy(name, tuple(sorted(steps, key=lambda step: step.after_ms)))

    def type_defaults(self, event_type: str) -> TypeDefaults:
        """The defaults of an event type; those of `types.default` if it has none of its own."""
        return self.types.get(normal_type(event_type), self.types["default"])

    def provider_sections(self) -> tuple[str, ...]:
        """The providers' tables that are set, such as "sms.twilio"."""
        channels = {"email": self.email, "push": self.push, "sms": self.sms}
        return tuple(f"{name}.{table}" for name, channel in channels.items() for table in channel.model_extra or {})

    def provider_table(self, section: str) -> dict[str, Any]:
        """A provider's table as it was written, such as that of "sms.twilio"; empty if there is none."""
        channel, _, table = section.partition(".")
        found: dict[str, Any] = (getattr(self, channel).model_extra or {}).get(table, {})
        return dict(found)

    def provider_settings(self, section: str, model: type[_Table]) -> _Table:
        """A provider's table as its own `model`. Raises SettingError that names the setting and the mend."""
        try:
            return model.model_validate(self.provider_table(section))
        except ValidationError as error:
            raise explain(error, self._sources, prefix=tuple(section.split("."))) from None

    def with_values(self, changes: Mapping[str, Any]) -> "Settings":
        """These settings with `changes`, by path and as they would be written: {"retry.base": "1s"}. Raises
        SettingError."""
        return _validated(self._sources.with_values(changes))


def load(environ: Mapping[str, str], path: Path | None = None) -> Settings:
    """The settings: settings.toml, over it the file at `path` (or that of TOCSIN_SETTINGS), over it the environment.
    Raises SettingError that names each setting that is unknown or wrong, where it was given, and the mend."""
    return _validated(read_sources(environ, path))


def _validated(sources: Sources) -> Settings:
    try:
        settings = Settings.model_validate(sources.tree)
    except ValidationError as error:
        # The cause is not chained: pydantic's own text tells less and may be long.
        raise explain(error, sources) from None
    settings._sources = sources
    _check_together(settings)
    return settings


def _check_together(settings: Settings) -> None:
    """What no single setting can tell."""
    for name in settings.actors.threads:
        if name not in QUEUE_THREADS:
            raise SettingError(f"actors.threads.{name}: there is no such queue; there are {', '.join(QUEUE_THREADS)}")
    if settings.retry.cap < settings.retry.base:
        raise SettingError("retry.cap: it is shorter than retry.base; make it as long at least")
