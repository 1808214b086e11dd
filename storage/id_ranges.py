"""The ids that can belong to an event, or to a span of time: all of them begin with the millisecond of their event."""

from uuid import UUID

from tocsin.domain import ids

_BITS_BELOW = 80
LAST_MS = (1 << 48) - 1
"""The last moment that an id can begin with."""


def of_event(event: UUID) -> tuple[UUID, UUID]:
    """The least and the greatest id that notifications and deliveries of `event` can have."""
    start_ms = ids.start_ms(event)
    return first_of(start_ms), UUID(int=first_of(start_ms + 1).int - 1)


def first_of(ms: int) -> UUID:
    """The least id of what began at `ms`, in milliseconds since 1970."""
    return UUID(int=min(max(0, ms), LAST_MS) << _BITS_BELOW)
