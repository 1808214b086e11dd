"""How much of its rate a provider has been given (docs/adr/0013). The scripts change that; here it is looked at."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tocsin.domain.delivery import Channel
from tocsin.domain.rate import Rate
from tocsin.storage.keys import Keys
from tocsin.storage.redis import told

_MESSAGE = 1_000_000
"""As in lua/rate.lua."""

Limited = tuple[Channel, str, Rate]
"""A provider that has a rate."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """How many messages may begin now, and in how many ms the next one may where none may."""

    tokens: int
    wait_ms: int


class Rates:
    """The buckets."""

    def __init__(self, client: Any, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def buckets(self, limited: Sequence[Limited]) -> list[Bucket]:
        """What each of these may be given now. Raises RedisAway."""
        if not limited:
            return []
        with told():
            async with self._client.pipeline(transaction=False) as pipeline:
                pipeline.time()
                for channel, provider, _ in limited:
                    pipeline.get(self._keys.rate(_name(channel, provider)))
                (seconds, microseconds), *found = await pipeline.execute()
        now_ms = int(seconds) * 1000 + int(microseconds) // 1000
        return [_bucket(rate, text, now_ms) for (_, _, rate), text in zip(limited, found, strict=True)]


def _name(channel: Channel, provider: str) -> str:
    return f"{channel}:{provider}"


def limit_of(channel: Channel, provider: str | None, rate: Rate | None) -> str:
    """A limit as the scripts read it; empty where there is none."""
    return f"{_name(channel, provider)}|{rate.per_1000_s}|{rate.burst}" if provider and rate else ""


def _bucket(rate: Rate, text: str | None, now_ms: int) -> Bucket:
    debt, _, at_ms = (text or f"0|{now_ms}").partition("|")
    lacking = max(0, int(debt) - max(0, now_ms - int(at_ms)) * rate.per_1000_s)
    tokens = max(0, (rate.burst * _MESSAGE - lacking) // _MESSAGE)
    short_of_one = lacking + _MESSAGE - rate.burst * _MESSAGE
    return Bucket(tokens, 0 if tokens else -(-short_of_one // rate.per_1000_s))
