"""What a mail server's replies mean, and what its silence does (RFC 5321, RFC 3463)."""

import re
from typing import Final

from aiosmtplib import SMTPAuthenticationError, SMTPException, SMTPRecipientRefused, SMTPResponseException

from tocsin.channels.cleaning import cleaned
from tocsin.channels.contract import Outcome, OutcomeKind
from tocsin.channels.trust import is_untrusted
from tocsin.domain.delivery import Reason

_CLOSING: Final = 421
_ENHANCED: Final = re.compile(r"\b([245]\.\d{1,3}\.\d{1,3})\b")
_QUEUE_IDS: Final = (
    re.compile(r"queued as <?([\w.@-]{4,200})", re.IGNORECASE),
    re.compile(r"\bid=([\w.@-]{4,200})", re.IGNORECASE),
    # SES answers "Ok 0100018…".
    re.compile(r"^(?:2\.\d\.\d )?ok ([\w.-]{16,200})$", re.IGNORECASE),
)
_ABOUT_THE_SENDER: Final = ("5.1.7", "5.1.8")
_AUTHENTICATION_REQUIRED: Final = 530


def is_closing(code: int) -> bool:
    """Whether a reply announces that the server closes the connection."""
    return code == _CLOSING


def queue_id(said: str) -> str | None:
    """The server's own name for a mail, where its answer tells one."""
    found = next((match for pattern in _QUEUE_IDS if (match := pattern.search(said))), None)
    return found[1] if found else None


def after_reply(error: SMTPResponseException, private: tuple[str, ...], *, handed_over: bool) -> Outcome:
    """RFC 5321: 4xx is for now, 5xx for good. Anything else was no answer."""
    if not 400 <= error.code < 600:
        return after_loss(error, private, handed_over=handed_over)
    enhanced = _ENHANCED.search(error.message)
    kind = OutcomeKind.PERMANENT if error.code >= 500 else OutcomeKind.TEMPORARY
    return Outcome(
        kind,
        _reason(error, enhanced[1] if enhanced else ""),
        code=f"{error.code} {enhanced[1]}" if enhanced else str(error.code),
        message=cleaned(error.message, private),
    )


def _reason(error: SMTPResponseException, enhanced: str) -> Reason:
    if isinstance(error, SMTPAuthenticationError):
        return Reason.NOT_CONFIGURED if error.code >= 500 else Reason.PROVIDER_DOWN
    if error.code == _AUTHENTICATION_REQUIRED:
        return Reason.NOT_CONFIGURED
    if error.code < 500:
        return _temporary_reason(error.code, enhanced)
    # Only 5.1.x says that the address is wrong; 5.7.x is policy, and others are about the mail or the server.
    wrong = enhanced.startswith("5.1.") and enhanced not in _ABOUT_THE_SENDER
    return Reason.INVALID_ADDRESS if wrong and isinstance(error, SMTPRecipientRefused) else Reason.REJECTED


def _temporary_reason(code: int, enhanced: str) -> Reason:
    if enhanced.startswith("4.7."):
        return Reason.RATE_LIMITED
    return Reason.PROVIDER_DOWN if is_closing(code) else Reason.REJECTED


def after_loss(error: Exception, private: tuple[str, ...], *, handed_over: bool) -> Outcome:
    """What a connection that was lost, or time that was up, leaves behind: unknown from DATA on."""
    timed_out = isinstance(error, TimeoutError)
    if handed_over:
        reason = Reason.TIMEOUT if timed_out else Reason.CONNECTION_LOST
        return Outcome(OutcomeKind.UNKNOWN, reason, message="handed over, then no answer from the mail server")
    reason = Reason.TIMEOUT if timed_out else Reason.PROVIDER_DOWN
    return Outcome(OutcomeKind.TEMPORARY, reason, message=cleaned(words(error), private))


def words(error: BaseException) -> str:
    """What to say of an error in the way to the server; an operating system's words may hold addresses."""
    if is_untrusted(error):
        return "the mail server's certificate cannot be verified"
    if isinstance(error, TimeoutError):
        return "no answer from the mail server in time"
    if isinstance(error, SMTPException) and not isinstance(error, OSError):
        return str(error.args[-1]) if error.args else type(error).__name__
    return "no connection to the mail server"
