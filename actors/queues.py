"""The queues: one for each kind of work and one for each channel, so that none delays another (C7)."""

from typing import Final

from tocsin.domain.delivery import Channel

FAN_OUT: Final = "fan_out"
ROUTE: Final = "route"
PERSIST: Final = "persist"


def of_channel(channel: Channel) -> str:
    """The queue of a channel's sends."""
    return f"send_{channel.lower()}"


SENDING_CHANNELS: Final = (Channel.PUSH, Channel.SMS, Channel.EMAIL)
"""The channels that have a provider; in-app is delivered by being listed."""

ALL: Final = (FAN_OUT, ROUTE, PERSIST, *map(of_channel, SENDING_CHANNELS))
