"""Dramatiq as it comes."""

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from items import URL

dramatiq.set_broker(RedisBroker(url=URL))


@dramatiq.actor
def nothing(number: int) -> None:
    """What an item does."""
