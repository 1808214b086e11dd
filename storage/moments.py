"""Times between Postgres's timestamptz and our milliseconds since 1970, exactly."""

from datetime import UTC, datetime, timedelta
from typing import Final, overload

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)


@overload
def ms_of(moment: datetime) -> int: ...
@overload
def ms_of(moment: None) -> None: ...
def ms_of(moment: datetime | None) -> int | None:
    """Milliseconds since 1970; None for null."""
    return None if moment is None else (moment - _EPOCH) // _MS


def moment_of(ms: int) -> datetime:
    """The moment that is `ms` milliseconds after the beginning of 1970."""
    return _EPOCH + ms * _MS
