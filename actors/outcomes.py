"""What a provider's outcome means for a delivery: the status it ends in, and whether another attempt follows."""

from dataclasses import dataclass

from tocsin.channels.contract import Outcome, OutcomeKind
from tocsin.domain.delivery import Fact, Reason, Status
from tocsin.domain.retry import RetryRule
from tocsin.storage.flights import Claim, Ending

_DETAILS = ("provider_id", "code", "message", "segments", "price")


@dataclass(frozen=True, slots=True)
class SendRules:
    """How a channel's sends are claimed and tried again."""

    retry: RetryRule
    lease_ms: int
    resend_unknown: bool


def ending_of(claim: Claim, outcome: Outcome, provider: str, rules: SendRules, *, chance: float) -> Ending:
    """The end of an attempt. An unknown outcome is tried again only where its channel says so (design §6)."""
    detail = _detail(outcome, provider)
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
