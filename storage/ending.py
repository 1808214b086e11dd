"""Ending tasks for certain."""

import asyncio
import math
from collections.abc import Iterable
from typing import Any, Final

_AGAIN_S: Final = 0.25


async def ended(tasks: Iterable["asyncio.Task[Any]"], limit_s: float = math.inf) -> bool:
    """Cancels tasks and waits for their end, at most `limit_s`; whether all of them ended. A cancellation that meets an
    answer in the same step is lost (in redis-py, and in asyncio.wait_for before Python 3.12), so it comes again."""
    pending = set(tasks)
    end_s = asyncio.get_running_loop().time() + limit_s
    while pending and (left_s := end_s - asyncio.get_running_loop().time()) > 0:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=min(_AGAIN_S, left_s))
    return not pending
