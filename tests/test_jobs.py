"""What happens by the clock, and how little it costs while nothing happens."""

import asyncio
from typing import Any

import pytest

from tests.scenes import an_event, routed
from tocsin.actors.jobs import Jobs, _Punctual
from tocsin.actors.persist import Persister
from tocsin.domain.delivery import Channel
from tocsin.domain.plan import Step
from tocsin.domain.settings import load
from tocsin.storage import counts, queries
from tocsin.storage.postgres import Postgres
from tocsin.storage.store import Store


async def test_the_clock_of_jobs_wakes_once_for_each_that_is_due() -> None:
    runs: asyncio.Queue[None] = asyncio.Queue()
    looks = 0

    class Counting(_Punctual):
        def _process_jobs(self) -> Any:
            nonlocal looks
            looks += 1
            return super()._process_jobs()

    async def job() -> None:
        runs.put_nowait(None)

    scheduler = Counting()
    scheduler.start()
    scheduler.add_job(job, "interval", seconds=0.03)
    for _ in range(20):
        await runs.get()
    scheduler.shutdown(wait=False)
    assert looks <= 25


@pytest.mark.servers
async def test_counts_are_summed_up_while_there_are_any_and_looked_for_seldom_otherwise(
    redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load({"REDIS_URL": redis_url, "DATABASE_URL": postgres_url})
    postgres = Postgres(settings.postgres)
    store = await Store.open(settings, postgres)
    found: list[int] = []

    def sum_up(most: int) -> int:
        found.append(counts.sum_up(most))
        return found[-1]

    monkeypatch.setattr(queries, "sum_up", sum_up)
    persister = Persister(store, "one")
    await routed(store.flights, an_event(Step(Channel.SMS, 0)), "u1")
    await persister.drain()
    jobs = Jobs(store, "one", persister.drain)
    for _ in range(5):
        await jobs._sum_up()
    await store.close()
    await postgres.close()
    assert found[0] > 0
    assert found[1:] == [0], "it rests where it has found nothing"
