"""The doctor looks at what providers are given a second, and how long what waits will take by that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tocsin.channels.contract import rate_of
from tocsin.channels.registry import build_senders, context_of
from tocsin.cli.findings import Finding, ok, warn
from tocsin.domain.delivery import Channel
from tocsin.domain.errors import RedisAway, SettingError
from tocsin.domain.settings import Settings
from tocsin.storage.depths import measure
from tocsin.storage.keys import Keys
from tocsin.storage.rates import Limited
from tocsin.storage.redis import connect

_HOUR_S = 3_600


async def check_rates(settings: Settings, url: str) -> list[Finding]:
    """The findings about rates that are set, with what waits in the Redis at `url`; none while it is away."""
    try:
        senders = build_senders(settings, context_of(settings, sandbox=False))
    except SettingError:
        return []  # said of the channels
    limits = [(channel, each.provider, rate) for channel, each in sorted(senders.items()) if (rate := rate_of(each))]
    for each in senders.values():
        await each.close()
    client = connect(url)
    try:
        depths = await measure(client, Keys(settings.redis.namespace, settings.redis.inbox_prefix))
    except RedisAway:
        return []
    finally:
        await client.aclose()
    return list(judge_rates(limits, depths.open))


def judge_rates(limits: Sequence[Limited], waiting: Mapping[Channel, int]) -> Iterator[Finding]:
    """One line for each provider whose rate is set."""
    for channel, provider, rate in limits:
        subject, count = channel.lower(), waiting.get(channel, 0)
        told = f"{provider} is given {rate.per_s:g} a second, {rate.burst} at once; {count} wait"
        takes_s = count / rate.per_s
        if takes_s < _HOUR_S:
            yield ok(subject, told)
            continue
        yield warn(
            subject,
            f"{told}, which takes {takes_s / _HOUR_S:.0f} h",
            f"Raise {subject}.{provider}.rate, if the provider takes more.",
        )
