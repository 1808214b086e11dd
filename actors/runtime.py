"""Everything that runs actors in one process: the loop they share, a Worker a queue, what looks at the clock.

Made by app.py for `tocsin serve` and `tocsin actors`; any number of processes may run one beside each other.
"""

import asyncio
import os
import socket
import threading
import time
from collections.abc import Coroutine, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final
from uuid import uuid4

import dramatiq
from loguru import logger
from prometheus_client import CollectorRegistry

from tocsin.actors import queues
from tocsin.actors.alerts import Alerts
from tocsin.actors.broker import WakingBroker
from tocsin.actors.escalation import watch
from tocsin.actors.fan_out import fan_out
from tocsin.actors.go_on import go_on
from tocsin.actors.jobs import Jobs
from tocsin.actors.loop import Loop
from tocsin.actors.metrics import SendCounters, StoredCounters
from tocsin.actors.outcomes import send_rules
from tocsin.actors.persist import Persister
from tocsin.actors.rebuild import Rebuilder
from tocsin.actors.reconcile import Reconciler
from tocsin.actors.route import route
from tocsin.actors.send import Lane
from tocsin.actors.worker import WakingWorker
from tocsin.channels.contract import BuildContext, Sender, rate_of
from tocsin.channels.registry import build_senders
from tocsin.domain.delivery import Channel
from tocsin.domain.settings import Settings
from tocsin.storage.ending import ended
from tocsin.storage.keys import Keys
from tocsin.storage.postgres import Postgres
from tocsin.storage.redis import connect_broker
from tocsin.storage.store import Store

_LOOK_AGAIN_S: Final = 0.05
_STORE_S: Final = 4.0
"""What is kept of the time to stop for recording what was sent, and for the journal."""
_LANES_END_S: Final = 2.5
"""A lane's own last second to break off what is late, and another to record what is known."""
_LEAST_S: Final = 0.5
_TASKS_END_S: Final = 1.0


class Runtime:
    """Started once, stopped once. `wanted` are the queues to work on; all of them by default."""

    def __init__(
        self,
        settings: Settings,
        postgres: Postgres,
        context: BuildContext,
        registry: CollectorRegistry,
        wanted: Iterable[str] = queues.ALL,
    ) -> None:
        self._settings = settings
        self._postgres = postgres
        self._context = context
        self._registry = registry
        self._counters = SendCounters(registry)
        self._stored = StoredCounters(registry)
        self._wanted = tuple(wanted)
        self._workers: list[WakingWorker] = []
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Returns when every queue is consumed. Raises Unavailable when Redis does not answer."""
        self._loop = Loop()
        self._store = self._loop.run(Store.open(self._settings, self._postgres))
        keys = Keys.of(self._settings.redis)
        assert self._settings.redis.url is not None  # noqa: S101  # app.py gives every process a server
        self._broker = WakingBroker(connect_broker(self._settings.redis.url), keys)
        self._process = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self._persister = Persister(self._store, self._process, self._stored)
        self._lanes = self._loop.run(self._open_lanes())
        self._declare_actors()
        self._broker.emit_after("process_boot")
        for queue in queues.worked_on(self._wanted):
            worker = WakingWorker(self._broker, queue, self._threads(queue))
            worker.start()
            self._workers.append(worker)
        self._loop.run(self._watch_clock())
        logger.info("actors run: {}", ", ".join(self._wanted))

    def stop(self) -> None:
        """Takes nothing new, finishes or hands back what is under way, and returns within `actors.shutdown` and about a
        second, also while Redis or Postgres hangs. What is not finished by then others take up."""
        limit_s = self._settings.actors.shutdown / 1000
        end_s = time.monotonic() + limit_s
        work_s = limit_s - min(_STORE_S, limit_s / 4)
        self._persister.stop()
        self._loop.run(self._stop_watching())
        closing = threading.Thread(target=self._loop.run, args=(self._close_lanes(work_s),), daemon=True)
        closing.start()
        self._stop_workers(work_s)
        closing.join(max(0.0, end_s - limit_s + work_s + _LANES_END_S - time.monotonic()))
        self._loop.run(self._finish(max(_LEAST_S, end_s - time.monotonic())))
        self._broker.close()
        self._loop.stop()
        logger.info("actors have stopped")

    def _threads(self, queue: str) -> int:
        threads: Mapping[str, int] = self._settings.actors.threads
        return threads.get(queue.removeprefix("send_"), 1)

    async def _open_lanes(self) -> dict[Channel, Lane]:
        senders: Mapping[Channel, Sender] = build_senders(self._settings, self._context)
        self._senders = senders
        self._providers = {channel: sender.provider for channel, sender in senders.items()}
        self._rates = {channel: rate for channel, sender in senders.items() if (rate := rate_of(sender))}
        return {
            channel: Lane(self._store, sender, send_rules(self._settings, channel), self._counters)
            for channel, sender in senders.items()
            if queues.of_channel(channel) in self._wanted
        }

    def _declare_actors(self) -> None:
        self._declare("fan_out", queues.FAN_OUT, lambda *events: fan_out(self._store, *events))
        self._declare("go_on", queues.GO_ON, lambda event, cursor: go_on(self._store, event, cursor))
        self._declare("route", queues.ROUTE, lambda event, chunk: route(self._store, event, chunk))
        self._declare("persist", queues.PERSIST, self._persister.drain)
        for channel in self._lanes:
            self._declare(f"send_{channel.lower()}", queues.of_channel(channel), self._lanes[channel].run)

    def _declare(self, name: str, queue: str, work: Any) -> None:
        def actor(*arguments: Any) -> None:
            coroutine: Coroutine[Any, Any, None] = work(*arguments)
            self._loop.run(coroutine)

        dramatiq.actor(actor_name=name, queue_name=queue, broker=self._broker)(actor)

    async def _watch_clock(self) -> None:
        self._alerts = self._persister.alerts = Alerts(self._store, self._registry)
        rebuilder = Rebuilder(self._store, self._persister, self._settings.actors.lease, alerts=self._alerts)
        self._tasks = [
            asyncio.create_task(watch(self._store, self._providers, self._rates)),
            asyncio.create_task(self._store.calls.listen(self._broker.wake)),
            asyncio.create_task(self._broker.watch(self._store.calls, queues.worked_on(self._wanted))),
            asyncio.create_task(self._store.keeper.run()),
            asyncio.create_task(rebuilder.watch()),
        ]
        reconciler = Reconciler(self._store, self._alerts, self._senders)
        self._jobs = Jobs(
            self._store,
            self._process,
            self._persister.drain,
            self._wanted,
            reconcile=reconciler.by_the_clock,
            senders={channel: lane.sender for channel, lane in self._lanes.items()},
        )
        self._jobs.start()

    async def _stop_watching(self) -> None:
        self._jobs.stop()
        await ended(self._tasks, _TASKS_END_S)

    async def _close_lanes(self, limit_s: float) -> None:
        """Closes all of them, whatever one of them meets with."""
        ends = await asyncio.gather(*(lane.close(limit_s) for lane in self._lanes.values()), return_exceptions=True)
        for channel, end in zip(self._lanes, ends, strict=True):
            if end is not None:
                logger.opt(exception=end).error("the lane of {} did not end in order", channel)

    def _stop_workers(self, limit_s: float) -> None:
        """Lets workers finish what they do. One that waits for a server beyond `limit_s` is left: others are called
        again."""
        stopping = [
            threading.Thread(target=worker.stop, kwargs={"timeout": int(limit_s * 1000)}, daemon=True)
            for worker in self._workers
        ]
        for thread in stopping:
            thread.start()
        end_s = time.monotonic() + limit_s
        while any(thread.is_alive() for thread in stopping) and time.monotonic() < end_s:
            # A consumer may fall asleep once more before it sees that it is to stop.
            self._broker.wake_all()
            time.sleep(_LOOK_AGAIN_S)

    async def _finish(self, limit_s: float) -> None:
        """Stores what the journal has, as far as time allows: others may go on filling it, and drain it too."""
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._persister.drain(limit_s / 2, last=True), limit_s)
            await asyncio.wait_for(self._persister.leave(), _LEAST_S)
        except TimeoutError:
            logger.info("what is left in the journal is stored by others, or at the next start")
        except Exception:
            logger.exception("the journal could not be left in order; others take it up")
        await self._alerts.close(_LEAST_S)
        await self._store.close()
