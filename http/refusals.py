"""Turns whatever went wrong into a problem document: errors of the floors below, of Starlette and of pydantic."""

import json
from collections.abc import Iterable, Mapping
from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.responses import Response

from tocsin.domain.errors import (
    Conflict,
    InvalidInput,
    KeyBusy,
    KeyMismatch,
    NotFound,
    Overloaded,
    PostgresAway,
    RedisAway,
    StillRunning,
    TooManyFilters,
    Unavailable,
)
from tocsin.http.problems import (
    BAD_FORMAT,
    BAD_REQUEST,
    BAD_USER_ID,
    BODY_TOO_LARGE,
    CONFLICT,
    IDEMPOTENCY_MISMATCH,
    INTERNAL,
    INVALID_VALUE,
    KEY_BUSY,
    KINDS,
    MALFORMED_JSON,
    MEDIA_TYPE,
    METHOD_NOT_ALLOWED,
    MISSING_FIELD,
    NO_SUCH_PATH,
    NOT_AVAILABLE,
    NOT_FOUND,
    OUT_OF_RANGE,
    OVERLOADED,
    POSTGRES_AWAY,
    REDIS_AWAY,
    STILL_RUNNING,
    TOO_LONG,
    TOO_MANY,
    TOO_MANY_FILTERS,
    TOO_SHORT,
    UNAVAILABLE,
    UNKNOWN_CHANNEL,
    UNKNOWN_FIELD,
    UNKNOWN_PRIORITY,
    UNKNOWN_STRATEGY,
    WRONG_TYPE,
    FieldError,
    Kind,
    Problem,
    from_errors,
)
from tocsin.storage.database import Refused

_BY_STATUS: Final[Mapping[int, Kind]] = {404: NO_SUCH_PATH, 405: METHOD_NOT_ALLOWED, 413: BODY_TOO_LARGE}

# The more special before the more general.
_BY_ERROR: Final[tuple[tuple[type[Exception], Kind], ...]] = (
    (RedisAway, REDIS_AWAY),
    (PostgresAway, POSTGRES_AWAY),
    (TooManyFilters, TOO_MANY_FILTERS),
    (Overloaded, OVERLOADED),
    (Unavailable, UNAVAILABLE),
    (NotFound, NOT_FOUND),
    (KeyMismatch, IDEMPOTENCY_MISMATCH),
    (StillRunning, STILL_RUNNING),
    (KeyBusy, KEY_BUSY),
    (Conflict, CONFLICT),
    (Refused, INVALID_VALUE),
)


def from_exception(error: Exception) -> Problem:
    """The problem that an error of the floors below, or of Starlette, is answered with."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, InvalidInput):
        kind = KINDS.get(error.code, INVALID_VALUE)
        return from_errors([FieldError(kind, error.field, error.detail)])
    if isinstance(error, Unavailable):
        return Problem(_kind_of_error(error), retry_after_s=error.retry_after_s)
    if isinstance(error, HTTPException):
        return Problem(_BY_STATUS.get(error.status_code, BAD_REQUEST))
    kind = _kind_of_error(error)
    detail = str(error) if kind is CONFLICT else None
    return Problem(kind, detail or None, retry_after_s=1 if kind in {STILL_RUNNING, KEY_BUSY} else None)


def answer_to(problem: Problem, cid: str, headers: Mapping[str, str] | None = None) -> Response:
    """The response that carries `problem`; `cid` is the request's correlation id."""
    sent = dict(headers or {})
    if problem.retry_after_s is not None:
        sent["Retry-After"] = str(problem.retry_after_s)
    if problem.kind.status == 401:
        sent["WWW-Authenticate"] = 'Bearer realm="tocsin"'
    document = problem.as_json() | {"correlationId": cid}
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return Response(body, problem.kind.status, sent, MEDIA_TYPE)


def from_validation(error: ValidationError, later: frozenset[str] = frozenset(), *, parameter: bool = False) -> Problem:
    """The problem that pydantic's findings make. `later` are the fields whose feature is not built yet; `parameter`
    says that the values came from the query, where a field is named plainly instead of pointed at."""
    return from_findings(findings_of(error), later, parameter=parameter)


def findings_of(error: ValidationError) -> list[ErrorDetails]:
    """What pydantic found, without the values, which may be secrets or addresses."""
    return error.errors(include_url=False, include_context=False, include_input=False)


def from_findings(
    findings: Iterable[ErrorDetails], later: frozenset[str], *, parameter: bool = False, below: int = 0
) -> Problem:
    """As `from_validation`, of some findings; `below` is how many places lead to the value that was looked at."""
    errors = [
        _field_error(found["type"], found["loc"][below:], found["msg"], later, parameter=parameter)
        for found in _plain(list(findings))
    ]
    # A field too many is often why another one is missing, so it is told first.
    errors.sort(key=lambda each: _FIRST.get(each.kind, len(_FIRST)))
    return from_errors(errors[:_MOST_ERRORS])


def _plain(findings: list[ErrorDetails]) -> list[ErrorDetails]:
    """`findings` without those that only follow from others: a list of which an item is wrong counts as too short."""
    inner = {found["loc"][:depth] for found in findings for depth in range(len(found["loc"]))}
    return [found for found in findings if not (found["type"] == "too_short" and found["loc"] in inner)]


def pointer(*places: str | int) -> str:
    """The JSON pointer (RFC 6901) of a place in a body."""
    return "".join("/" + str(place).replace("~", "~0").replace("/", "~1") for place in places)


_MOST_ERRORS: Final = 20
_FIRST: Final[Mapping[Kind, int]] = {NOT_AVAILABLE: 0, UNKNOWN_FIELD: 1}

_BY_TYPE: Final[Mapping[str, Kind]] = {
    "json_invalid": MALFORMED_JSON,
    "missing": MISSING_FIELD,
    "extra_forbidden": UNKNOWN_FIELD,
    "string_too_long": TOO_LONG,
    "string_too_short": TOO_SHORT,
    "too_long": TOO_MANY,
    "too_short": TOO_SHORT,
    "string_pattern_mismatch": BAD_FORMAT,
    "uuid_parsing": BAD_FORMAT,
    "greater_than_equal": OUT_OF_RANGE,
    "less_than_equal": OUT_OF_RANGE,
    "int_parsing": WRONG_TYPE,
    "bool_parsing": WRONG_TYPE,
    "int_from_float": WRONG_TYPE,
}

_UNKNOWN_WORDS: Final[Mapping[str, Kind]] = {
    "channels": UNKNOWN_CHANNEL,
    "channel": UNKNOWN_CHANNEL,
    "deliveryStrategy": UNKNOWN_STRATEGY,
    "notificationPriority": UNKNOWN_PRIORITY,
}

_DETAILS: Final[Mapping[Kind, str]] = {
    MISSING_FIELD: "The field is required.",
    UNKNOWN_FIELD: "There is no such field.",
    NOT_AVAILABLE: "The feature that this field belongs to is not available.",
}

_USER_IDS: Final = frozenset({"recipientIds", "userId", "id"})


def _field_error(
    found: str, place: tuple[int | str, ...], detail: str, later: frozenset[str], *, parameter: bool
) -> FieldError:
    words = [part for part in place if isinstance(part, str)]
    last = words[-1] if words else ""
    kind = _kind_of(found, last)
    if kind is UNKNOWN_FIELD and last in later:
        kind = NOT_AVAILABLE
    if kind is MALFORMED_JSON:
        return FieldError(kind, "", detail)
    said = _DETAILS.get(kind) or detail.replace("Tuple", "List").replace(" after validation", "")
    return FieldError(kind, last if parameter else pointer(*place), said)


def _kind_of(found: str, last: str) -> Kind:
    if found == "enum":
        return _UNKNOWN_WORDS.get(last, INVALID_VALUE)
    if found == "string_pattern_mismatch" and last in _USER_IDS:
        return BAD_USER_ID
    if found.endswith("_type"):
        return WRONG_TYPE
    # Our own validators name our kinds (shapes.py).
    return _BY_TYPE.get(found) or KINDS.get(found, INVALID_VALUE)


def _kind_of_error(error: Exception) -> Kind:
    return next((kind for error_type, kind in _BY_ERROR if isinstance(error, error_type)), INTERNAL)
