"""From a thread that holds rows locked to the event loop on which Redis is asked meanwhile."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import TimeoutError as TookTooLong
from typing import Any, Final, ParamSpec, TypeVar

from tocsin.domain.errors import RedisAway

_Given = ParamSpec("_Given")
_Answer = TypeVar("_Answer")

_LIMIT_S: Final = 8.0
"""Well below LOCKED_MS (transactions.py): a call that is given up is over before the rows are let go."""


def from_thread(work: Callable[_Given, Coroutine[Any, Any, _Answer]]) -> Callable[_Given, _Answer]:
    """`work` of this event loop for a thread. Raises what it raises; and RedisAway when it takes too long, when it may
    yet have been done."""
    loop = asyncio.get_running_loop()

    def run(*given: _Given.args, **named: _Given.kwargs) -> _Answer:
        working = asyncio.run_coroutine_threadsafe(work(*given, **named), loop)
        try:
            return working.result(_LIMIT_S)
        except TookTooLong as error:
            working.cancel()
            raise RedisAway("Redis did not answer in time") from error

    return run
