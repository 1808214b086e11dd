"""Every setting, typed. settings.toml holds the defaults and the comments; `load` is called once, by app.py."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, PrivateAttr, ValidationError

from tocsin.domain.delivery import Channel
from tocsin.domain.errors import SettingError
from tocsin.domain.plan import Policy, Step
from tocsin.domain.setting_sections import (
    QUEUE_THREADS,
    ActorSettings,
    AlertSettings,
    AsJson,
    AuthSettings,
    BreakerSettings,
    CacheSettings,
    DataSettings,
    EmailSettings,
    EscalationSettings,
    HttpSettings,
    LimitSettings,
    LogSettings,
    MetricsSettings,
    PolicyStep,
    PostgresSettings,
    PushSettings,
    ReconcileSettings,
    RedisSettings,
    RetrySettings,
    SandboxSettings,
    Section,
    SmsSettings,
    TypeDefaults,
    UncertainSettings,
)
from tocsin.domain.setting_sources import Sources, explain, normal_type, read_sources

_Table = TypeVar("_Table", bound=BaseModel)


class Settings(Section):
    """All of it. Never changed; `with_values` makes another."""

    redis: RedisSettings
    postgres: PostgresSettings
    data: DataSettings
    http: HttpSettings
    auth: AuthSettings
    cache: CacheSettings
    escalation: EscalationSettings
    policies: dict[str, Annotated[list[PolicyStep], AsJson, Field(min_length=1)]]
    types: dict[str, TypeDefaults]
    actors: ActorSettings
    retry: RetrySettings
    breaker: BreakerSettings
    email: EmailSettings
    push: PushSettings
    sms: SmsSettings
    reconcile: ReconcileSettings
    uncertain: UncertainSettings
    alerts: AlertSettings
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
        """A provider's table as its own `model`, which gives what is not set. Raises SettingError naming the setting
        and the mend."""
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
    if settings.reconcile.preflight_to <= settings.reconcile.preflight_from:
        raise SettingError("reconcile.preflight_to: it is not later than reconcile.preflight_from; make it later")
    if settings.alerts.webhook_url and not settings.alerts.webhook_secret:
        raise SettingError("alerts.webhook_secret: it is not set, and alerts are not sent unsigned; set it")
    if settings.breaker.cap < settings.breaker.rest:
        raise SettingError("breaker.cap: it is shorter than breaker.rest; make it as long at least")
    redis = settings.redis
    if redis.plan_journal > redis.max_journal:
        raise SettingError(
            "redis.plan_journal: it is more than redis.max_journal; planning, which fills the journal most, must stop"
            " before accepting does"
        )
    if not redis.max_memory_share <= redis.plan_memory_share <= redis.claim_memory_share:
        raise SettingError(
            "redis.plan_memory_share: it lies outside redis.max_memory_share and redis.claim_memory_share; what was"
            " accepted could not be planned, or what was planned not be sent"
        )
