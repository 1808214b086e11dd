"""The log's word about each attempt. A line costs as much as the rest of a send together, so those that end alike
within a moment share one: "EMAIL <delivery> <delivery> … step 1 attempt 1: SENT"."""

import asyncio
from collections import defaultdict
from typing import Final

from loguru import logger

from tocsin.domain import ids
from tocsin.domain.delivery import Channel
from tocsin.storage.flight_parts import Ending

_GATHER_S: Final = 0.05
_MOST: Final = 50
"""Deliveries of one line."""

_Alike = tuple[str, int, int, str, str]


class SentLines:
    """Gathers what is to be said of a channel, on one event loop."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._gathered: defaultdict[_Alike, list[Ending]] = defaultdict(list)
        self._timer: asyncio.TimerHandle | None = None

    def say(self, ending: Ending, cid: str) -> None:
        """Says soon how an attempt ended."""
        reason = ending.detail.get("reason")
        alike = (cid, ending.claim.step, ending.claim.attempt, str(ending.status), f" ({reason})" if reason else "")
        self._gathered[alike].append(ending)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_GATHER_S, self.flush)

    def flush(self) -> None:
        """Says it now."""
        if self._timer is not None:
            self._timer.cancel()
        gathered, self._timer = self._gathered, None
        self._gathered = defaultdict(list)
        for (cid, step, attempt, status, reason), endings in gathered.items():
            for first in range(0, len(endings), _MOST):
                names = " ".join(map(_name, endings[first : first + _MOST]))
                logger.bind(cid=cid).info(
                    "{} {} step {} attempt {}: {}{}", self._channel, names, step, attempt, status, reason
                )


def _name(ending: Ending) -> str:
    claim = ending.claim
    return str(ids.delivery_id(claim.notification, claim.step, claim.channel))
