"""The queues: one for each kind of work and one for each channel, so that none delays another (C7)."""

from collections.abc import Iterable
from typing import Final

from tocsin.domain.delivery import Channel

FAN_OUT: Final = "fan_out"
GO_ON: Final = "go_on"
"""Where large events go on, so that small ones do not wait behind them. Who works on FAN_OUT works on this too."""
ROUTE: Final = "route"
PERSIST: Final = "persist"


def of_channel(channel: Channel) -> str:
    """The queue of a channel's sends."""
    return f"send_{channel.lower()}"


SENDING_CHANNELS: Final = (Channel.PUSH, Channel.SMS, Channel.EMAIL)
"""The channels that have a provider; in-app is delivered by being listed."""

ALL: Final = (FAN_OUT, ROUTE, PERSIST, *map(of_channel, SENDING_CHANNELS))


def worked_on(named: Iterable[str]) -> tuple[str, ...]:
    """The queues that a process consumes which is to work on those named."""
    named = tuple(named)
    return (*named, GO_ON) if FAN_OUT in named else named
