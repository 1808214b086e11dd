"""The same no-op item for every peer, each as its own documentation begins; and putting so many into its queue:

    items.py <dramatiq|celery|rq|huey|taskiq> <count>

Runs in an environment of the peers' own (peers.py makes it from requirements.lock), never in the program's. REDIS_URL
says where Redis is.
"""

import asyncio
import os
import sys
from collections.abc import Callable

URL = os.environ["REDIS_URL"]


def nothing(number: int) -> None:
    """What an item does."""


def put_dramatiq(count: int) -> None:
    from dramatiq_items import nothing as item

    for number in range(count):
        item.send(number)


def put_celery(count: int) -> None:
    from celery_items import nothing as item

    for number in range(count):
        item.delay(number)


def put_rq(count: int) -> None:
    from redis import Redis
    from rq import Queue

    queue = Queue(connection=Redis.from_url(URL))
    for number in range(count):
        queue.enqueue("items.nothing", number)


def put_huey(count: int) -> None:
    from huey_items import nothing as item

    for number in range(count):
        item(number)


def put_taskiq(count: int) -> None:
    from taskiq_items import broker
    from taskiq_items import nothing as item

    async def put() -> None:
        await broker.startup()
        for number in range(count):
            await item.kiq(number)
        await broker.shutdown()

    asyncio.run(put())


PUT: dict[str, Callable[[int], None]] = {
    "dramatiq": put_dramatiq,
    "celery": put_celery,
    "rq": put_rq,
    "huey": put_huey,
    "taskiq": put_taskiq,
}

if __name__ == "__main__":
    PUT[sys.argv[1]](int(sys.argv[2]))
