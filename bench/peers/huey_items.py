"""Huey as it comes, without results."""

from huey import RedisHuey
from items import URL

huey = RedisHuey("items", url=URL, results=False)


@huey.task()
def nothing(number: int) -> None:
    """What an item does."""
