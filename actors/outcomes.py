"""What a provider's outcome means for a delivery: the status it ends in, and whether another attempt follows."""

from dataclasses import dataclass, replace

from tocsin.channels.contract import Outcome, OutcomeKind
from tocsin.domain.breaker import Health
from tocsin.domain.delivery import Channel, Fact, Reason, Status
from tocsin.domain.retry import RetryRule
from tocsin.domain.settings import Settings
from tocsin.storage.flight_parts import Claim, Ending

_NOT_ITSELF = frozenset({Reason.PROVIDER_DOWN, Reason.TIMEOUT, Reason.CONNECTION_LOST})
_ABOUT_THE_MESSAGE = frozenset({Reason.INVALID_ADDRESS, Reason.REJECTED})
_DETAILS = ("provider_id", "code", "message", "segments", "price")


@dataclass(frozen=True, slots=True)
class SendRules:
    """How a channel's sends are claimed and tried again."""

    retry: RetryRule
    lease_ms: int
    resend_unknown: bool


def send_rules(settings: Settings, channel: Channel) -> SendRules:
    """The rules of S8 and of unknown outcomes (design §6) as they are set for `channel`."""
    retry = settings.retry
    section = {Channel.EMAIL: settings.email, Channel.PUSH: settings.push, Channel.SMS: settings.sms}[channel]
    return SendRules(
        retry=RetryRule(attempts=retry.attempts, base_ms=retry.base, cap_ms=retry.cap, jitter=retry.jitter),
        lease_ms=settings.actors.lease,
        resend_unknown=section.on_uncertain == "resend",
    )


def ending_of(claim: Claim, outcome: Outcome, provider: str, rules: SendRules, *, chance: float) -> Ending:
    """The end of an attempt. An unknown outcome is tried again only where its channel says so (design §6)."""
    ending = _ending(claim, outcome, _detail(outcome, provider), rules, chance)
    return replace(ending, health=health_of(outcome), asked_ms=int((outcome.retry_after_s or 0) * 1000))


def health_of(outcome: Outcome) -> Health:
    """What an outcome says of the provider. A refusal of one message that came from it says that it works."""
    if outcome.kind is OutcomeKind.SENT:
        return Health.UP
    if outcome.kind is OutcomeKind.PERMANENT:
        return Health.UP if outcome.code and outcome.reason in _ABOUT_THE_MESSAGE else Health.UNSAID
    limited = outcome.reason is Reason.RATE_LIMITED and outcome.retry_after_s is not None
    return Health.DOWN if limited or outcome.reason in _NOT_ITSELF else Health.UNSAID


def _ending(claim: Claim, outcome: Outcome, detail: Fact, rules: SendRules, chance: float) -> Ending:
    if outcome.kind is OutcomeKind.SENT:
        return Ending(claim, Status.SENT, detail)
    if outcome.kind is OutcomeKind.PERMANENT:
        return Ending(claim, Status.FAILED, detail)
    unknown = outcome.kind is OutcomeKind.UNKNOWN
    if not rules.retry.allows(claim.attempt) or (unknown and not rules.resend_unknown):
        return Ending(claim, Status.UNCERTAIN if unknown else Status.DEAD, detail)
    return Ending(
        claim,
        Status.UNCERTAIN if unknown else Status.FAILED,
        detail,
        retry_in_ms=rules.retry.delay_ms(claim.attempt, chance, outcome.retry_after_s),
        retry_reason=outcome.reason or Reason.REJECTED,
    )


def not_configured(claim: Claim) -> Ending:
    """A channel without credentials or SDK fails its deliveries and says so (C6)."""
    return Ending(claim, Status.FAILED, {"reason": Reason.NOT_CONFIGURED})


def without_address(claim: Claim) -> Ending:
    """The address went away between the plan and its time."""
    return Ending(claim, Status.SUPPRESSED, {"reason": Reason.NO_ADDRESS})


def _detail(outcome: Outcome, provider: str) -> Fact:
    detail: Fact = {"provider": provider}
    if outcome.reason:
        detail["reason"] = outcome.reason
    if outcome.provider_status:
        detail["word"] = outcome.provider_status
    for name in _DETAILS:
        value = getattr(outcome, name)
        if value is not None:
            detail[name] = value
    return detail
