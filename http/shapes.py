"""The building blocks of what HTTP takes and answers: camelCase, upper-case enums, times in ISO 8601.

Types that are asked (`Asked`) refuse what they do not know; types that answer (`Answer`) are made in Python by field
name. openapi.py describes exactly these types, so nothing is documented that is not checked.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Final, Generic, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from tocsin.domain.addresses import LOCALE, USER_ID

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DATE_TIME: Final = {"type": "string", "format": "date-time"}


class Asked(BaseModel):
    """What a caller sends. Values are taken strictly: a number in quotes is not a number."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True, frozen=True)

    later: ClassVar[frozenset[str]] = frozenset()
    """Fields of features that are not built yet: refused as `not_available`, and absent from the OpenAPI document."""

    @classmethod
    def read(cls, raw: bytes) -> Self:
        """What a body says. Raises ValidationError."""
        return cls.model_validate_json(raw)


class NoBody(Asked):
    """Nothing. A field that is not looked at must not seem to have an effect: read-all reads all, whatever is asked."""

    @classmethod
    def read(cls, raw: bytes) -> Self:
        """Raises ValidationError for anything but an empty object, null or no body."""
        return cls() if raw.strip() in {b"", b"null"} else cls.model_validate_json(raw)


class Query(BaseModel):
    """What a caller puts in the query, where every value is text."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)


class NoQuery(Query):
    """No parameter is taken."""


class Answer(BaseModel):
    """What a caller gets."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, serialize_by_alias=True, frozen=True
    )


Row = TypeVar("Row", bound=Answer)


class Listing(Answer, Generic[Row]):
    """One page of a list; `nextCursor` is null on the last page."""

    data: tuple[Row, ...]
    next_cursor: str | None = None


class Paging(Query):
    """Which page of a list."""

    limit: int = Field(50, ge=1, le=200)
    cursor: Annotated[str, StringConstraints(pattern=r"^[!-~]{1,512}$")] | None = None


def iso(at_ms: int) -> str:
    """`at_ms` in ISO 8601, UTC, with milliseconds and `Z`."""
    moment = EPOCH + timedelta(milliseconds=at_ms)
    return f"{moment.year:04d}-{moment:%m-%dT%H:%M:%S}.{at_ms % 1000:03d}Z"


def from_iso(text: Any) -> Any:
    """The milliseconds of an ISO 8601 time that names its zone. Raises PydanticCustomError `bad_format`."""
    if not isinstance(text, str):
        return text
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return (moment - EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        pass
    raise PydanticCustomError("bad_format", "Write the time as 2025-11-21T09:30:00Z")


Moment = Annotated[int, PlainSerializer(iso, return_type=str), WithJsonSchema(_DATE_TIME)]
"""A time: milliseconds inside, ISO 8601 outside."""

AskedMoment = Annotated[int, BeforeValidator(from_iso), WithJsonSchema(_DATE_TIME)]
"""A time that a caller gives in ISO 8601 with its zone; milliseconds inside."""

UserId = Annotated[str, StringConstraints(pattern=f"^{USER_ID.pattern}$")]

Line = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""Text of one line, without control characters."""

Text = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^\x00]*$")]
"""Text of any number of lines. NUL is refused because Postgres cannot keep it."""

EventType = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,99}$")]
"""Such as event.approval, or EVENT_APPROVAL, which is the same."""

Locale = Annotated[str, StringConstraints(pattern=f"^{LOCALE.pattern}$")]


def limited(name: str) -> dict[str, JsonValue]:
    """The mark of a field whose length a setting of `limits.` bounds; openapi.py puts the number in its place."""
    return {LIMIT_MARK: name}


LIMIT_MARK: Final = "x-limit"
