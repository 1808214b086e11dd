"""Celery as it comes, without results."""

from celery import Celery
from items import URL

app = Celery("items", broker=URL.replace("unix://", "redis+socket://").replace("?db=", "?virtual_host="))
app.conf.task_ignore_result = True


@app.task
def nothing(number: int) -> None:
    """What an item does."""
