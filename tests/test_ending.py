"""Tasks are ended though a cancellation of theirs is lost."""

import asyncio

from tocsin.storage.ending import ended


async def deaf(times: int) -> None:
    """Loses so many cancellations, as a client does that they meet together with its answer."""
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            times -= 1
            if times < 0:
                raise


async def test_a_task_that_lost_its_cancellation_is_cancelled_again() -> None:
    task = asyncio.create_task(deaf(1))
    await asyncio.sleep(0)
    assert await ended([task])
    assert task.cancelled()


async def test_one_that_will_not_end_is_waited_for_no_longer_than_was_said() -> None:
    task = asyncio.create_task(deaf(3))
    await asyncio.sleep(0)
    assert not await ended([task], 0.1)
    assert await ended([task])
