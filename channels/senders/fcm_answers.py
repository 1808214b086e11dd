"""What FCM's answers mean: for one device, and for all devices of a person together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from firebase_admin import exceptions, messaging

from tocsin.channels.cleaning import cleaned
from tocsin.channels.contract import Outcome, OutcomeKind
from tocsin.channels.senders.transport import Call, after_error, retry_after_s
from tocsin.domain.delivery import Reason

_SHORTEST_QUOTA_WAIT_S: Final = 60.0
_NAMES_THE_TOKEN: Final = ("message.token", "not a valid fcm registration token")

_PERMANENT: Final = (
    (messaging.SenderIdMismatchError, Reason.REJECTED),
    (messaging.ThirdPartyAuthError, Reason.NOT_CONFIGURED),
    (exceptions.UnauthenticatedError, Reason.NOT_CONFIGURED),
    (exceptions.PermissionDeniedError, Reason.NOT_CONFIGURED),
    (exceptions.InvalidArgumentError, Reason.REJECTED),
    (exceptions.NotFoundError, Reason.REJECTED),
)
_WORST_FIRST: Final = (OutcomeKind.UNKNOWN, OutcomeKind.TEMPORARY, OutcomeKind.PERMANENT)


@dataclass(frozen=True, slots=True)
class Answer:
    """How the push to one device ended; `dead` when the device will never get one again."""

    token: str
    outcome: Outcome
    dead: bool = False


def read_refusal(token: str, call: Call[Any], error: exceptions.FirebaseError) -> Answer:
    """Reads what the SDK raised for one device."""
    if error.http_response is None:
        return Answer(token, after_error(call, error.cause))
    if _is_dead(error):
        outcome = Outcome(OutcomeKind.PERMANENT, Reason.INVALID_ADDRESS, code=error.code, message=str(error))
        return Answer(token, outcome, dead=True)
    return Answer(token, replace(_classified(call, error), code=error.code, message=str(error)))


def combined(answers: Sequence[Answer], private: Sequence[str]) -> Outcome:
    """One outcome for all devices: sent if any took it. Otherwise an unknown one counts before one that may be tried
    again, and that before one that may not."""
    dead = tuple(answer.token for answer in answers if answer.dead)
    sent = [answer.outcome for answer in answers if answer.outcome.kind is OutcomeKind.SENT]
    if sent:
        said = f"{len(sent)} of {len(answers)} devices" if len(answers) > 1 else None
        return replace(sent[0], message=said, dead_tokens=dead)
    kind = next(kind for kind in _WORST_FIRST if any(answer.outcome.kind is kind for answer in answers))
    alike = [answer.outcome for answer in answers if answer.outcome.kind is kind]
    shown = next((outcome for outcome in alike if outcome.reason is not Reason.INVALID_ADDRESS), alike[0])
    waits = [outcome.retry_after_s for outcome in alike if outcome.retry_after_s is not None]
    return replace(
        shown,
        message=cleaned(shown.message, private),
        retry_after_s=max(waits) if waits else None,
        dead_tokens=dead,
    )


def _is_dead(error: exceptions.FirebaseError) -> bool:
    """Unregistered, or said to be no token. Any other 400 and a plain 404 are about the call, and keep the token."""
    if isinstance(error, messaging.UnregisteredError):
        return True
    body = error.http_response.text.lower()
    return isinstance(error, exceptions.InvalidArgumentError) and any(words in body for words in _NAMES_THE_TOKEN)


def _classified(call: Call[Any], error: exceptions.FirebaseError) -> Outcome:
    for kind, reason in _PERMANENT:
        if isinstance(error, kind):
            return Outcome(OutcomeKind.PERMANENT, reason)
    asked = retry_after_s(error.http_response.headers)
    if isinstance(error, exceptions.ResourceExhaustedError):
        wait = max(asked or 0.0, _SHORTEST_QUOTA_WAIT_S)
        return Outcome(OutcomeKind.TEMPORARY, Reason.RATE_LIMITED, retry_after_s=wait)
    if isinstance(error, exceptions.UnavailableError | exceptions.InternalError):
        return Outcome(OutcomeKind.TEMPORARY, Reason.PROVIDER_DOWN, retry_after_s=asked)
    return after_error(call, error)
