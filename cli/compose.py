"""Makes a process of its parts: servers of our own where none is given, storage, actors, http; ends it in order.

HTTP stops first, then the clock and the actors, then the pools, then the servers that are our own (design §5, R5).
"""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import uvicorn
import uvloop
from loguru import logger
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from tocsin.actors.metrics import Gauges
from tocsin.actors.runtime import Runtime
from tocsin.channels.contract import Askable, BuildContext, Sender, rate_of
from tocsin.channels.registry import build_senders, context_of
from tocsin.channels.sandbox.sandbox import Sandbox
from tocsin.cli.check_start import check_start
from tocsin.cli.credentials import with_credentials
from tocsin.cli.interpreter import collect_seldom, take_short_turns
from tocsin.cli.listening import Server, address_of, listen
from tocsin.cli.stopping import Stopping, Threads, leave
from tocsin.domain.delivery import Channel
from tocsin.domain.errors import PostgresAway, SettingError
from tocsin.domain.settings import Settings
from tocsin.http import figures
from tocsin.http.application import build
from tocsin.http.context import Carrier, Context
from tocsin.http.pages.pages import routes
from tocsin.storage.embedded_postgres import EmbeddedPostgres
from tocsin.storage.embedded_redis import EmbeddedRedis
from tocsin.storage.ending import ended
from tocsin.storage.migrate import migrate
from tocsin.storage.postgres import Postgres
from tocsin.storage.store import Store

_MIGRATE_AGAIN_S = 5.0
_PART_ENDS_S = 0.75
_PARTS_END_S = 5.0
"""What the parts may need beside the times that are set for them: a call to a server that does not answer."""
_SERVERS_END_S = 30.0
"""What our own servers may need to write down what they have."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a process does: answer HTTP, and work on the named queues."""

    http: bool
    queues: tuple[str, ...]
    sandbox: bool = False
    ephemeral: bool = False


@dataclass
class Process:
    """One process of Tocsin, once its servers are there."""

    settings: Settings
    parts: Parts
    sandbox: Sandbox | None
    listening: socket.socket | None
    signals: Stopping
    figures: socket.socket | None = None
    """Where figures are shown by a process that answers no other HTTP."""
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Runs until SIGTERM or SIGINT; a second one ends it at once."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(Threads())
        self.signals.to(partial(loop.call_soon_threadsafe, self.stopping.set), self._limit_s())
        async with AsyncExitStack() as stack:
            postgres = Postgres(self.settings.postgres)
            stack.push_async_callback(postgres.close)
            await self._migrate(stack)
            if not self.parts.ephemeral and not self.stopping.is_set():
                await check_start(self.settings)
            if self.parts.queues and not self.stopping.is_set():
                await stack.enter_async_context(self._actors(postgres))
            if self.parts.http and not self.stopping.is_set():
                await stack.enter_async_context(self._http(postgres))
            elif self.figures and not self.stopping.is_set():
                await stack.enter_async_context(self._figures(postgres, self.figures))
            if not self.stopping.is_set():
                self._say_where()
            await self.stopping.wait()
            logger.info("stopping")

    def _limit_s(self) -> float:
        """How long all parts together may take to stop."""
        http_ms = self.settings.http.shutdown if self.parts.http else 0
        actors_ms = self.settings.actors.shutdown if self.parts.queues else 0
        return (http_ms + actors_ms) / 1000 + _PARTS_END_S

    async def _migrate(self, stack: AsyncExitStack) -> None:
        """Brings the schema up to date now, or as soon as Postgres is there."""
        try:
            await asyncio.to_thread(self._bring_up_to_date)
        except PostgresAway as error:
            logger.warning("{}; the schema is brought up to date when it is back", error)
            again = asyncio.create_task(self._migrate_later())
            stack.callback(again.cancel)

    def _bring_up_to_date(self) -> None:
        url = self.settings.postgres.url
        assert url is not None  # noqa: S101  # `servers` gave every process one
        migrate(url, period=self.settings.postgres.partition)

    async def _migrate_later(self) -> None:
        while True:
            await asyncio.sleep(_MIGRATE_AGAIN_S)
            try:
                await asyncio.to_thread(self._bring_up_to_date)
            except PostgresAway:
                continue
            except SettingError as error:
                logger.error("{}; the schema is not brought up to date", error)
                return
            logger.info("Postgres is there and its schema is up to date")
            return

    @asynccontextmanager
    async def _actors(self, postgres: Postgres) -> AsyncIterator[None]:
        runtime = Runtime(self.settings, postgres, self._building, self.registry, self.parts.queues)
        await asyncio.to_thread(runtime.start)
        try:
            yield
        finally:
            await asyncio.to_thread(runtime.stop)

    @asynccontextmanager
    async def _http(self, postgres: Postgres) -> AsyncIterator[None]:
        store = await Store.open(self.settings, postgres)
        keeping = asyncio.create_task(store.keeper.run())
        context = await self._context(store)
        server = Server(_uvicorn_config(self.settings, context))
        assert self.listening is not None  # noqa: S101  # made before the process, so that its port is known
        serving = asyncio.create_task(server.serve(sockets=[self.listening]))
        serving.add_done_callback(lambda _: self.stopping.set())
        try:
            yield
        finally:
            context.stopping.set()
            server.end()
            await serving
            await asyncio.gather(context.alerts.close(_PART_ENDS_S), ended([keeping], _PART_ENDS_S))
            await store.close()

    @asynccontextmanager
    async def _figures(self, postgres: Postgres, listening: socket.socket) -> AsyncIterator[None]:
        store = await Store.open(self.settings, postgres)
        carriers = await self._carriers()
        gauges = self._gauges(carriers)
        application = figures.build(self.registry, lambda: gauges.refresh(store))
        server = Server(_figures_config(application))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield
        finally:
            server.end()
            await serving
            await store.close()

    async def _context(self, store: Store) -> Context:
        carriers = await self._carriers()
        gauges = self._gauges(carriers)
        return Context(
            settings=self.settings,
            store=store,
            registry=self.registry,
            carriers=carriers,
            outbox=self.sandbox.outbox if self.sandbox else None,
            refresh=lambda: gauges.refresh(store),
        )

    def _gauges(self, carriers: Mapping[Channel, Carrier]) -> Gauges:
        providers = {channel: carrier.provider for channel, carrier in carriers.items()}
        rates = {channel: carrier.rate for channel, carrier in carriers.items() if carrier.rate}
        return Gauges(self.registry, providers, rates)

    async def _carriers(self) -> dict[Channel, Carrier]:
        """Who carries each channel; nothing is sent from here."""
        senders = build_senders(self.settings, self._building)
        for each in senders.values():
            await each.close()
        return {channel: _carrier(each) for channel, each in senders.items()}

    @property
    def _building(self) -> BuildContext:
        return context_of(self.settings, sandbox=self.sandbox is not None)

    def _say_where(self) -> None:
        if self.listening is None:
            shown = f"; figures at {address_of(self.figures)}/metrics" if self.figures else ""
            logger.info("ready: actors only{}", shown)
            return
        where = address_of(self.listening)
        logger.info("ready: {}", where)
        if sys.stderr.isatty() or self.sandbox:
            key_file = self.settings.data.dir / "admin_key"
            lines = [f"  page      {where}/", f"  API       {where}/docs", f"  health    {where}/ready"]
            if key_file.exists():
                lines.append(f"  admin key {key_file}")
            if self.sandbox:
                lines.append("  sandbox   mail, SMS and push stay on this machine; see the outbox on the page")
            print("\n".join(["", *lines, ""]), flush=True)  # noqa: T201  # where to look, said to a person


def _carrier(sender: Sender) -> Carrier:
    receipts = isinstance(sender, Askable) and sender.gives_receipts
    return Carrier(sender.provider, sender.configured, receipts, rate_of(sender))


def run(settings: Settings, parts: Parts) -> None:
    """Runs a process until it is told to stop. Raises SettingError, and Unavailable where Redis is needed and away."""
    signals = Stopping()
    signals.listen()
    with ExitStack() as stack:
        settings = stack.enter_context(servers(settings, ephemeral=parts.ephemeral))
        listening = listen(settings.http.host, settings.http.port) if parts.http else None
        figures_at = _figures_at(settings) if not parts.http else None
        for opened in filter(None, (listening, figures_at)):
            stack.callback(opened.close)
        sandbox = Sandbox() if parts.sandbox or settings.sandbox.enabled else None
        if sandbox:
            sandbox.start()
            stack.callback(sandbox.stop)
            settings = _in_sandbox(settings, sandbox, listening)
        settings = with_credentials(settings)
        collect_seldom()
        take_short_turns()
        stack.callback(signals.last, _SERVERS_END_S)
        uvloop.run(Process(settings, parts, sandbox, listening, signals, figures_at).run())
    leave()


@contextmanager
def servers(settings: Settings, *, ephemeral: bool = False) -> Iterator[Settings]:
    """The settings with a Postgres and a Redis in them: those given, or our own for as long as this lasts."""
    with ExitStack() as stack:
        given: dict[str, Any] = {}
        if settings.postgres.url is None:
            postgres = EmbeddedPostgres(settings.data.dir)
            stack.callback(postgres.stop)
            given["postgres.url"] = postgres.start()
        if settings.redis.url is None:
            redis = EmbeddedRedis(settings.data.dir, ephemeral=ephemeral)
            stack.callback(redis.stop)
            given["redis.url"] = redis.start()
        yield settings.with_values(given)


def _figures_at(settings: Settings) -> socket.socket | None:
    port = settings.metrics.port
    return None if port is None else listen(settings.http.host, port, setting="metrics.port")


def _in_sandbox(settings: Settings, sandbox: Sandbox, listening: socket.socket | None) -> Settings:
    """The settings with the sandbox's servers for providers, and receipts coming back to this process."""
    given: dict[str, Any] = {"sandbox.enabled": True}
    for section, table in sandbox.settings_overrides().items():
        given |= {f"{section}.{name}": value for name, value in table.items()}
    if settings.http.public_url is None and listening is not None:
        given["http.public_url"] = f"http://127.0.0.1:{listening.getsockname()[1]}"
    return settings.with_values(given)


def _figures_config(application: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        lifespan="off",
        log_config=None,
        access_log=False,
        # Who asks for figures holds up nobody's end.
        timeout_graceful_shutdown=1,
    )


def _uvicorn_config(settings: Settings, context: Context) -> uvicorn.Config:
    return uvicorn.Config(
        build(context, routes()),
        http="httptools",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, settings.http.shutdown // 1000),
    )
