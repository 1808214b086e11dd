"""taskiq as it comes, on a list in Redis, without results."""

from items import URL
from taskiq_redis import ListQueueBroker

broker = ListQueueBroker(URL)


@broker.task
async def nothing(number: int) -> None:
    """What an item does."""
