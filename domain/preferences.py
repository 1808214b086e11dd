"""What a person allows: on or off per channel, and per event type and channel (P1).

Off is kept as a tuple of opt-outs, "SMS" or "SMS@event.approval", because nearly everybody has none.
"""

from collections.abc import Iterable

from tocsin.domain.delivery import Channel


def allows(opt_outs: Iterable[str], channel: Channel, event_type: str, *, mandatory: bool = False) -> bool:
    """Whether a delivery may go out. Off holds for CRITICAL too; only a type declared mandatory passes it (P5)."""
    return mandatory or not {str(channel), f"{channel}@{event_type}"}.intersection(opt_outs)
