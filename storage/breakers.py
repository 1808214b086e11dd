"""Which providers rest (docs/adr/0006). The scripts alone change that; here it is looked at, and said."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from loguru import logger

from tocsin.domain.breaker import BreakerRules
from tocsin.domain.delivery import Channel
from tocsin.storage.keys import Keys
from tocsin.storage.redis import told


@dataclass(frozen=True, slots=True)
class Resting:
    """A provider that is not called before `until_ms`; after that it is tried, one call at a time."""

    channel: Channel
    provider: str
    failures: int
    until_ms: int


class Breakers:
    """What the hash of breakers says."""

    def __init__(self, client: Any, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def resting(self) -> list[Resting]:
        """The providers that rest or are on trial. Raises RedisAway."""
        with told():
            found = await self._client.hgetall(self._keys.breakers)
        return [each for name, text in sorted(found.items()) if (each := _resting(name, text)) is not None]


def name_of(rules: BreakerRules, channel: Channel, provider: str | None) -> str:
    """What a breaker is called in Redis; empty where there is none."""
    return f"{channel}:{provider}" if provider and rules.failures else ""


def say_changes(changes: Sequence[str]) -> None:
    """Says what a script changed; whoever ran it is the only one who hears of it."""
    for change in changes:
        what, name, failures, until_ms = change.split("|")
        channel, _, provider = name.partition(":")
        if what == "opened":
            until = datetime.fromtimestamp(int(until_ms) / 1000, UTC).isoformat(timespec="seconds")
            logger.warning("{} rests until {}: {} failures in a row on {}", provider, until, failures, channel)
        else:
            logger.info("{} answers again on {}; what waited goes out", provider, channel)


def _resting(name: str, text: str) -> Resting | None:
    channel, _, provider = name.partition(":")
    state, failures, _, until_ms, *_ = text.split("|")
    return Resting(Channel(channel), provider, int(failures), int(until_ms)) if state == "open" else None
