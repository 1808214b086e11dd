"""What happens by the clock (APScheduler): the drain is looked after, stored events that never started are entered,
people's opt-outs are mirrored, changes of events are summed up, cancellations brought to their end, providers asked,
and what is stored is reconciled.

Every process that runs actors runs these; each job is harmless many at a time, or takes a lock so that one does it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import wraps

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from loguru import logger

from tocsin.actors import queues
from tocsin.actors.cancelling import go_on
from tocsin.actors.dead_letters import EVERY_S, count_dead_letters
from tocsin.actors.look_up import look_up
from tocsin.actors.outages import remind, say_failed
from tocsin.actors.receipts import count_receipts
from tocsin.channels.contract import Sender
from tocsin.domain.delivery import Channel
from tocsin.domain.errors import Overloaded, Unavailable
from tocsin.domain.event import Contact
from tocsin.storage import cancellations, event_keys, idempotency, lives, partitions, queries, users
from tocsin.storage.memory import Work
from tocsin.storage.store import Store

_APART = timedelta(milliseconds=70)
"""Between one job's beginning and the next one's: at once they would keep whoever asks this process waiting."""
_SWEEP_S = 5
_CANCEL_S = 2
_OTHERS_START_S = 20
_FORGET_S = 600
_COUNT_S = 600
_TEND_S = 60
_PARTITIONS_S = 3_600
_MOST_FORGOTTEN = 5_000
_CANCELLATIONS_DAYS = 90
_UNSTARTED_AFTER_MS = 5_000
_MOST_SWEPT = 200
_BEHIND_MS = 3_600_000
_SUMMED_AT_ONCE = 10_000
_MOST_SUMS = 20
_NOTHING_TO_SUM_S = 4.5
_KNOWN_MS = 23 * 3_600_000
"""Redis knows an event for a day after its fan-out, at least; that of a younger one is known to have started or not."""
_PAGE = 1_000
_LONGEST_CHANGE_MS = 30_000
"""A change is stamped when it begins and seen when it is committed."""
_EARLY_S = 0.002
"""By so much a timer of the event loop may come too early."""


class _Punctual(AsyncIOScheduler):  # type: ignore[misc]  # it has no types
    """A scheduler that looks at its jobs once for each that is due: woken a little early it would find nothing to do,
    and look again."""

    def _start_timer(self, wait_seconds: float | None) -> None:
        super()._start_timer(None if wait_seconds is None else wait_seconds + _EARLY_S)


class Jobs:
    """The schedule of one process."""

    def __init__(
        self,
        store: Store,
        process: str,
        drain: Callable[[], Awaitable[None]],
        worked_on: Iterable[str] = queues.ALL,
        *,
        reconcile: Callable[[], Awaitable[None]] | None = None,
        senders: Mapping[Channel, Sender] | None = None,
    ) -> None:
        self._store = store
        self._process = process
        self._drain = drain
        self._queues = tuple(worked_on)
        self._senders = dict(senders or {})
        self._began_s = time.monotonic()
        self._reconcile = reconcile
        self._sums_from_s = 0.0
        self._scheduler = _Punctual(job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": 30})

    def start(self) -> None:
        jobs = (
            # First: without it nobody who is given inline is planned for while Postgres is away.
            (self._mirror_people, _SWEEP_S),
            (self._nudge, 1),
            (self._say_alive, _SWEEP_S),
            (self._take_redis, _SWEEP_S),
            (self._enter_unstarted, _SWEEP_S),
            (self._go_on_cancelling, _CANCEL_S),
            (self._sum_up, 1),
            (self._forget_old, _FORGET_S),
            (self._tend_journal, _TEND_S),
            (self._tend_partitions, _PARTITIONS_S),
            (self._look_up, self._store.settings.uncertain.every / 1000),
            (self._count_receipts, _COUNT_S),
            (self._count_dead_letters, EVERY_S),
            (self._forget_witnesses, _FORGET_S),
        )
        now = datetime.now(UTC)
        for place, (job, every_s) in enumerate(jobs):
            begins = now + place * _APART
            self._scheduler.add_job(_quietly(job), "interval", seconds=every_s, next_run_time=begins)
        if self._reconcile is not None:
            # Not at once: what a process that starts finds late is being taken up.
            period_s = self._store.settings.reconcile.every / 1000
            self._scheduler.add_job(_quietly(self._reconcile), "interval", seconds=period_s)
        self._scheduler.start()

    def stop(self) -> None:
        self._scheduler.shutdown(wait=False)

    async def _nudge(self) -> None:
        if not await self._store.facts.length():
            return
        try:
            await self._store.memory.check(Work.SEND)
            await self._store.calls.put(queues.PERSIST, "persist", most_waiting=1)
        except Overloaded:
            # At its limit Redis takes no call and hands none out, and has no other way back from it than this.
            await self._drain()

    async def _go_on_cancelling(self) -> None:
        await go_on(self._store)

    async def _tend_journal(self) -> None:
        await self._store.facts.tend()

    async def _sum_up(self) -> None:
        """Adds what changed in events to their counts; of many processes one at a time does it. Where there was nothing
        it rests for a while: whoever counts looks at what is not summed up too."""
        if time.monotonic() < self._sums_from_s:
            return
        for turn in range(_MOST_SUMS):
            summed = await self._store.postgres.call(queries.sum_up, _SUMMED_AT_ONCE)
            if summed < _SUMMED_AT_ONCE:
                self._sums_from_s = 0.0 if summed or turn else time.monotonic() + _NOTHING_TO_SUM_S
                return

    async def _tend_partitions(self) -> None:
        period = self._store.settings.postgres.partition
        for made in await self._store.postgres.call(partitions.tend, period, _now_ms()):
            logger.info("partition {} is made, and {} rows moved into it", made.name, made.moved)

    async def _look_up(self) -> None:
        await look_up(self._store, self._senders, self._store.settings.uncertain.most)

    async def _count_receipts(self) -> None:
        await count_receipts(self._store, self._senders)

    async def _count_dead_letters(self) -> None:
        await count_dead_letters(self._store)

    async def _forget_witnesses(self) -> None:
        await self._store.postgres.call(lives.forget_silent)

    async def _say_alive(self) -> None:
        await self._store.alive(self._process, self._queues)
        if time.monotonic() - self._began_s < _OTHERS_START_S:
            return
        if unattended := await self._store.unattended(queues.ALL):
            names = ",".join(unattended)
            remind(
                f"no process works on {names}; what is to be done there waits: start `tocsin actors --queues {names}`"
            )

    async def _take_redis(self) -> None:
        """Redis may have been emptied, or exchanged for another's."""
        if not await self._store.take_redis():
            remind("Redis holds what belongs to another Tocsin, with another Postgres; see `tocsin doctor`")

    async def _enter_unstarted(self) -> None:
        """Enters stored events that Redis has not: the process that took them died, or Redis was away."""
        async with self._store.lock("enter_unstarted") as mine:
            if not mine:
                return
            await self._store.memory.check(Work.ACCEPT)
            behind = await self._behind()
            unstarted = await self._store.postgres.call(
                queries.unfinished_events, _UNSTARTED_AFTER_MS, _MOST_SWEPT, started=False
            )
            if not unstarted:
                return
            # One that was withdrawn comes to its end too: its notifications are made, with nothing to send.
            withdrawn = await self._store.postgres.call(queries.withdrawn, [event.id for event, _ in unstarted])
            await self._store.refilling().mark_cancelled(withdrawn)
            for event, recipients in unstarted:
                if behind and _now_ms() - event.accepted_ms > _KNOWN_MS:
                    continue
                if await self._store.flights.accept(event, recipients, None):
                    await self._store.calls.put(queues.FAN_OUT, "fan_out", str(event.id))
                    logger.info("event {} was stored and not started; it starts now", event.id)

    async def _behind(self) -> bool:
        """Whether what is in the journal goes back far: Postgres may not have heard that an old event started, and
        Redis may have forgotten it since."""
        oldest_ms = await self._store.facts.oldest_ms()
        return oldest_ms is not None and _now_ms() - oldest_ms > _BEHIND_MS

    async def _forget_old(self) -> None:
        await self._store.postgres.call(idempotency.forget_old, _MOST_FORGOTTEN)
        await self._store.postgres.call(cancellations.forget_old, _CANCELLATIONS_DAYS, _MOST_FORGOTTEN)
        await self._store.postgres.call(event_keys.forget_keys, _MOST_FORGOTTEN)

    async def _mirror_people(self) -> None:
        """Copies what everybody switched off to Redis, once in its life, and after that whoever changed: a change whose
        own copy failed, because Redis was away, is made up for here."""
        async with self._store.lock("mirror_people") as mine:
            if not mine:
                return
            mirrored_ms = await self._store.profiles.mirrored_ms()
            now_ms = await self._store.postgres.call(users.clock_ms)
            after = ""
            while page := await self._people(mirrored_ms, after):
                await self._store.profiles.renew(page)
                after = page[-1].id
            await self._store.profiles.mirrored_up_to(now_ms)

    async def _people(self, mirrored_ms: int | None, after: str) -> list[Contact]:
        if mirrored_ms is None:
            return await self._store.postgres.call(users.all_opt_outs, after, _PAGE)
        return await self._store.postgres.call(users.changed_since, mirrored_ms - _LONGEST_CHANGE_MS, _PAGE, after)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _quietly(job: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """The job, saying no more than a word while a server is away: others say it aloud. The scheduler would tell a
    defect at each of its times."""

    @wraps(job)
    async def run() -> None:
        try:
            await job()
        except Unavailable as error:
            logger.debug("{} waits: {}", job.__name__, error)
        except asyncio.CancelledError:
            logger.debug("{} was broken off, for the process ends", job.__name__)
        except Exception:
            say_failed(job.__name__.strip("_"))

    return run
