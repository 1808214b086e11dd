"""SMS through Twilio: its settings, what its codes and words mean, and how its receipts are read.

Sending is in `senders.twilio`, which is imported when Twilio is configured: the SDK and what it stands on cost 30 MB.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final

from pydantic import Field

from tocsin.channels.cleaning import cleaned
from tocsin.channels.contract import BuildContext, OutcomeKind, Provider, RatedTable, Sender
from tocsin.channels.unconfigured import Unconfigured
from tocsin.domain.delivery import Channel, Reason, Status
from tocsin.domain.errors import SettingError
from tocsin.domain.units import DurationMs

SECTION: Final = "sms.twilio"
CALLBACK_PATH: Final = "/callbacks/twilio"


class TwilioSettings(RatedTable):
    """The table `sms.twilio`."""

    account_sid: str | None = None
    auth_token: str | None = Field(default=None, repr=False)
    from_number: str | None = None
    base_url: str = "https://api.twilio.com"
    timeout: DurationMs = 20_000
    concurrency: int = Field(default=8, ge=1, le=200)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an error code says about trying again, and why."""

    kind: OutcomeKind
    reason: Reason


_BY_MEANING: Final[Mapping[Meaning, tuple[int, ...]]] = {
    Meaning(OutcomeKind.PERMANENT, Reason.OPTED_OUT): (21610,),
    Meaning(OutcomeKind.PERMANENT, Reason.INVALID_ADDRESS): (21211, 21614, 21635, 30005, 30006),
    Meaning(OutcomeKind.PERMANENT, Reason.NOT_CONFIGURED): (20003, 21408, 21608, 30034),
    Meaning(OutcomeKind.PERMANENT, Reason.REJECTED): (30004, 30007, 30450),
    Meaning(OutcomeKind.TEMPORARY, Reason.RATE_LIMITED): (20429, 30001),
    Meaning(OutcomeKind.TEMPORARY, Reason.PROVIDER_DOWN): (20503,),
    Meaning(OutcomeKind.TEMPORARY, Reason.UNDELIVERED): (30003, 30008),
}
CODES: Final[Mapping[int, Meaning]] = {code: meaning for meaning, codes in _BY_MEANING.items() for code in codes}
"""The codes whose meaning is known; any other is judged by its HTTP status alone."""

_STATUS_OF_WORD: Final[Mapping[str, Status]] = {
    # Each of these proves that Twilio has the message, which settles an attempt whose answer was lost.
    "accepted": Status.SENT,
    "scheduled": Status.SENT,
    "queued": Status.SENT,
    "sending": Status.SENT,
    "sent": Status.SENT,
    "partially_delivered": Status.SENT,
    "delivered": Status.DELIVERED,
    "read": Status.DELIVERED,
    "undelivered": Status.BOUNCED,
    "failed": Status.BOUNCED,
    "canceled": Status.BOUNCED,
}


@dataclass(frozen=True, slots=True)
class Receipt:
    """What one status callback tells. `status` is None for a word that is not known."""

    status: Status | None
    word: str
    provider_id: str
    code: str | None
    message: str | None
    reason: Reason | None
    segments: int | None
    price: str | None


def validate(auth_token: str, url: str, params: Any, signature: str) -> bool:
    """Whether Twilio signed this request. `url` is the public base URL + path + raw query; `params` is Starlette's
    FormData itself, since a dict would lose repeated fields."""
    from twilio.request_validator import RequestValidator  # noqa: PLC0415  # the SDK may be missing

    return bool(RequestValidator(auth_token).validate(url, params, signature))


def receipt(form: Mapping[str, Any]) -> Receipt:
    """Reads a status callback. Pure; missing fields are empty."""
    word = str(form.get("MessageStatus") or form.get("SmsStatus") or "").lower()[:40]
    status = _STATUS_OF_WORD.get(word)
    code = str(form.get("ErrorCode") or "")[:20]
    numbers = [str(form[name]) for name in ("To", "From") if form.get(name)]
    segments = str(form.get("NumSegments") or "")
    price = str(form.get("Price") or "")[:20]
    return Receipt(
        status=status,
        word=word,
        provider_id=str(form.get("MessageSid") or form.get("SmsSid") or "")[:64],
        code=code or None,
        message=cleaned(form.get("ErrorMessage"), numbers) or (f"Twilio error {code}" if code else None),
        reason=_bounce_reason(word, code) if status is Status.BOUNCED else None,
        segments=int(segments) if segments.isascii() and segments.isdigit() and len(segments) < 4 else None,
        price=price or None,
    )


def _bounce_reason(word: str, code: str) -> Reason:
    if word == "canceled":
        return Reason.CANCELLED
    meaning = CODES.get(int(code)) if code.isascii() and code.isdigit() else None
    return meaning.reason if meaning and meaning.kind is OutcomeKind.PERMANENT else Reason.UNDELIVERED


def _build(settings: TwilioSettings, context: BuildContext) -> Sender:
    provider = "sandbox" if context.sandbox else "twilio"
    if settings.account_sid is None:
        return Unconfigured(Channel.SMS, provider, f"{SECTION}.account_sid: not set, so SMS is not configured")
    if find_spec("twilio") is None:
        return Unconfigured(Channel.SMS, provider, f"{SECTION}: the package twilio is not installed")
    for name in ("auth_token", "from_number"):
        if getattr(settings, name) is None:
            raise SettingError(f"{SECTION}.{name}: set it with the account, or unset {SECTION}.account_sid")
    from tocsin.channels.senders.twilio import TwilioSender  # noqa: PLC0415  # see the module's docstring

    return TwilioSender(settings, context, provider)


PROVIDER: Final = Provider("twilio", Channel.SMS, SECTION, TwilioSettings, _build)
