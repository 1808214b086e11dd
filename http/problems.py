"""Every way in which a request can fail, as RFC 9457 problem documents with stable codes.

Handlers raise a `Problem` made of one of the kinds below, or let an error of domain/errors.py pass: refusals.py turns
either into the document. `/docs` and docs/api.md list this table; callers may rely on `code` and `status`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tocsin.domain.errors import TocsinError

MEDIA_TYPE: Final = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Kind:
    """One named problem: its code never changes, its words may."""

    code: str
    status: int
    title: str
    mend: str


MALFORMED_JSON = Kind("malformed_json", 400, "The body is not JSON.", "Send one JSON object, in UTF-8.")
BAD_REQUEST = Kind("bad_request", 400, "The request cannot be read.", "Send a well-formed HTTP request.")

TOKEN_MISSING = Kind(
    "token_missing", 401, "No token was sent.", "Send `Authorization: Bearer <API key or user token>`."
)
BEARER_MISSING = Kind(
    "bearer_missing",
    401,
    "The Authorization header does not begin with `Bearer `.",
    "Write the word Bearer and a space before the token: `Authorization: Bearer <token>`.",
)
TOKEN_INVALID = Kind(
    "token_invalid",
    401,
    "The token is not valid.",
    "Use a key that is not revoked, or a token signed for this service.",
)
TOKEN_EXPIRED = Kind("token_expired", 401, "The token has expired.", "Ask for a new token and try again.")

FORBIDDEN = Kind("forbidden", 403, "This token may not do that.", "Use a token with one of the roles that may.")
USER_TOKEN_NEEDED = Kind(
    "user_token_needed",
    403,
    "Only the user can do that.",
    "Use the user's own token; a sender key gets one from POST /api/users/{id}/token.",
)
BAD_SIGNATURE = Kind(
    "bad_signature",
    403,
    "The signature does not fit the request.",
    "Check the provider's auth token and http.public_url in the settings.",
)

NOT_FOUND = Kind("not_found", 404, "There is no such thing.", "Check the id.")
NO_SUCH_PATH = Kind("no_such_path", 404, "There is nothing at this path.", "See /openapi.json for the paths.")
METHOD_NOT_ALLOWED = Kind(
    "method_not_allowed", 405, "This path does not take that method.", "See the Allow header and /openapi.json."
)
CONFLICT = Kind("conflict", 409, "It is not in a state for that.", "Look at its present state first.")
RECONCILING = Kind(
    "reconciling",
    409,
    "Another run of reconciliation is under way.",
    "Try again after the seconds in Retry-After, or look at the runs that were.",
)
STILL_RUNNING = Kind(
    "idempotency_running",
    409,
    "The first request with this Idempotency-Key is still running.",
    "Repeat the request after the seconds in Retry-After.",
)
KEY_BUSY = Kind(
    "key_busy",
    409,
    "Another event with this key is being taken.",
    "Try again after the seconds in Retry-After.",
)
TOKENS_NOT_CONFIGURED = Kind(
    "tokens_not_configured", 409, "No secret for user tokens is set.", "Set auth.jwt_secret and start again."
)
BODY_TOO_LARGE = Kind(
    "body_too_large", 413, "The body is over the limit.", "Send less at a time; http.max_body sets the limit."
)
WRONG_CONTENT_TYPE = Kind(
    "wrong_content_type", 415, "The body is not of the right type.", "Send `Content-Type: application/json`."
)
COMPRESSED = Kind("compressed", 415, "The body is compressed.", "Send it as it is, without Content-Encoding.")

INVALID_VALUE = Kind("invalid_value", 422, "A value is not valid.", "Send a value that the field takes.")
MISSING_FIELD = Kind("missing_field", 422, "A field is missing.", "Add the field.")
UNKNOWN_FIELD = Kind("unknown_field", 422, "A field is not known.", "Leave the field out, or mend its spelling.")
NOT_AVAILABLE = Kind("not_available", 422, "This is not available in this version.", "Leave the field out until it is.")
WRONG_TYPE = Kind("wrong_type", 422, "A value is of the wrong type.", "Send the type that /openapi.json names.")
UNKNOWN_CHANNEL = Kind("unknown_channel", 422, "There is no such channel.", "Use IN_APP, PUSH, SMS or EMAIL.")
UNKNOWN_STRATEGY = Kind("unknown_strategy", 422, "There is no such strategy.", "Use BROADCAST or ESCALATION.")
UNKNOWN_PRIORITY = Kind("unknown_priority", 422, "There is no such priority.", "Use LOW, MEDIUM, HIGH or CRITICAL.")
UNKNOWN_POLICY = Kind(
    "unknown_policy", 422, "There is no such policy.", "Name a policy of settings.toml, or leave it out."
)
UNKNOWN_TOPIC = Kind(
    "unknown_topic", 422, "There is no such topic.", "Make it with PUT /api/topics/{key}, or mend its spelling."
)
BAD_TOPIC_KEY = Kind(
    "bad_topic_key",
    422,
    "A topic's key is not in the right form.",
    "Use 1 to 128 of letters, digits and . _ : @ + -",
)
BAD_ROLE = Kind("bad_role", 422, "A role is not in the right form.", "Use 1 to 64 of letters, digits and . _ : @ + -")
BAD_FILTER = Kind(
    "bad_filter",
    422,
    "The filter is not understood.",
    'Write it as {"gotra": "Sharma", "age": {"gte": 18}}; the documentation of the API has all of its tests.',
)
BAD_ATTRIBUTE = Kind(
    "bad_attribute",
    422,
    "An attribute cannot be kept.",
    "Use a text, a number, true or false, or a list of those, under a short name.",
)
NO_STEPS = Kind(
    "no_steps",
    422,
    "The policy has no step on the channels asked for.",
    "Ask for a channel that the policy names, or for BROADCAST.",
)
NO_RECIPIENTS = Kind(
    "no_recipients", 422, "Nobody is left to notify.", "Name at least one known user, or give contact details inline."
)
NOTHING_ACCEPTED = Kind(
    "nothing_accepted", 422, "None of the events was accepted.", "See the problem of each under `results`."
)
TOO_MANY = Kind("too_many", 422, "The list is too long.", "Split it into several requests.")
TOO_LONG = Kind("too_long", 422, "A text is too long.", "Shorten it.")
TOO_SHORT = Kind("too_short", 422, "A value is empty or too short.", "Give it some content.")
OUT_OF_RANGE = Kind("out_of_range", 422, "A number is out of its range.", "Send a number in the range named.")
BAD_FORMAT = Kind("bad_format", 422, "A text is not in the right form.", "Send the form that /openapi.json names.")
BAD_USER_ID = Kind(
    "bad_user_id", 422, "A user id is not in the right form.", "Use 1 to 128 of letters, digits and . _ : @ + -"
)
BAD_PHONE = Kind(
    "bad_phone", 422, "A phone number is not valid.", "Write it with + and the country code, such as +919876543210."
)
BAD_EMAIL = Kind("bad_email", 422, "An email address is not valid.", "Write it as name@example.org.")
BAD_TIMEZONE = Kind("bad_timezone", 422, "A time zone is not known.", "Use an IANA name, such as Asia/Kolkata.")
BAD_CURSOR = Kind("bad_cursor", 422, "The cursor is not valid.", "Use the nextCursor of the last answer as it is.")
BAD_IDEMPOTENCY_KEY = Kind(
    "bad_idempotency_key",
    422,
    "The Idempotency-Key is not in the right form.",
    "Use 1 to 255 visible ASCII characters.",
)
IDEMPOTENCY_MISMATCH = Kind(
    "idempotency_mismatch",
    422,
    "This Idempotency-Key was used with another body.",
    "Use a new key for a new request, and the same body to repeat one.",
)

INTERNAL = Kind("internal", 500, "Something went wrong here.", "Try again; tell the operator the correlation id.")
NOT_READY = Kind("not_ready", 503, "This process cannot take events now.", "Mend the parts that are named.")
UNAVAILABLE = Kind("unavailable", 503, "Something this needs is away.", "Try again after the seconds in Retry-After.")
REDIS_AWAY = Kind("redis_away", 503, "Redis does not answer.", "Try again after the seconds in Retry-After.")
POSTGRES_AWAY = Kind("postgres_away", 503, "Postgres does not answer.", "Try again after the seconds in Retry-After.")
OVERLOADED = Kind(
    "overloaded", 503, "A limit of memory or disk is reached.", "Try again after the seconds in Retry-After."
)

TOO_MANY_FILTERS = Kind(
    "too_many_filters",
    503,
    "As many filters are being stopped as there is room for.",
    "Try again after the seconds in Retry-After, or name the events by their ids.",
)

KINDS: Final[Mapping[str, Kind]] = {kind.code: kind for kind in tuple(globals().values()) if isinstance(kind, Kind)}
"""All of the above by code."""

AUTHENTICATION: Final = (TOKEN_MISSING, BEARER_MISSING, TOKEN_INVALID, TOKEN_EXPIRED)
AWAY: Final = (REDIS_AWAY, POSTGRES_AWAY, OVERLOADED, UNAVAILABLE)
VALIDATION: Final = (MISSING_FIELD, UNKNOWN_FIELD, WRONG_TYPE, INVALID_VALUE, BAD_FORMAT, TOO_LONG, TOO_SHORT)


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one value. `field` is a JSON pointer into the body, or the name of a parameter."""

    kind: Kind
    field: str
    detail: str

    def as_json(self) -> dict[str, str]:
        return {"code": self.kind.code, "field": self.field, "detail": self.detail, "mend": self.kind.mend}


class Problem(TocsinError):
    """A request that is answered with a problem document."""

    def __init__(
        self,
        kind: Kind,
        detail: str | None = None,
        *,
        field: str | None = None,
        errors: Sequence[FieldError] = (),
        retry_after_s: int | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail or kind.title)
        self.kind = kind
        self.detail = detail or kind.title
        self.field = field
        self.errors = tuple(errors)
        self.retry_after_s = retry_after_s
        self.more = more or {}

    def as_json(self) -> dict[str, Any]:
        """The document, without the correlation id."""
        document: dict[str, Any] = {
            "type": f"/docs#{self.kind.code}",
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
            "code": self.kind.code,
            "mend": self.kind.mend,
        }
        if self.field is not None:
            document["field"] = self.field
        if self.errors:
            document["errors"] = [error.as_json() for error in self.errors]
        return document | dict(self.more)


def from_errors(errors: Sequence[FieldError]) -> Problem:
    """The problem that stands for `errors`; it bears the code and the field of the first."""
    first = errors[0]
    return Problem(first.kind, first.detail, field=first.field, errors=errors)
