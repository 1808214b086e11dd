"""The doctor looks at who rests: providers that were down the last time anybody called them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from tocsin.cli.findings import Finding, ok, warn
from tocsin.domain.errors import RedisAway
from tocsin.domain.setting_sections import RedisSettings
from tocsin.storage.breakers import Breakers, Resting
from tocsin.storage.keys import Keys
from tocsin.storage.redis import connect


async def check_breakers(settings: RedisSettings, url: str) -> list[Finding]:
    """The findings about providers, as the Redis at `url` knows them; none while it is away."""
    client = connect(url)
    try:
        return list(judge_breakers(await Breakers(client, Keys.of(settings)).resting()))
    except RedisAway:
        return []
    finally:
        await client.aclose()


def judge_breakers(resting: Sequence[Resting]) -> Iterator[Finding]:
    """One line for each provider that rests; one in all when none does."""
    if not resting:
        yield ok("providers", "none rests")
    for each in resting:
        until = datetime.fromtimestamp(each.until_ms / 1000, UTC).isoformat(timespec="seconds")
        yield warn(
            each.channel.lower(),
            f"{each.provider} rests until {until} after {each.failures} failures in a row; what is to go out waits",
            "It is tried again then by itself. See what the provider says of its state, and the way to it.",
        )
