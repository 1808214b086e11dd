"""For those who run Tocsin: is it alive, is it ready, what are its figures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final, Literal

from starlette.responses import Response

from tocsin.actors import queues
from tocsin.domain.delivery import Channel
from tocsin.domain.errors import TocsinError
from tocsin.http.caller import PUBLIC, VIEWERS
from tocsin.http.context import Context
from tocsin.http.endpoint import Call, Endpoint
from tocsin.http.figures import figures
from tocsin.http.problems import AUTHENTICATION, AWAY, FORBIDDEN, NOT_READY, Problem
from tocsin.http.shapes import Answer, Moment, NoQuery
from tocsin.storage.store import Store

_PROBE_S: Final = 2.0


class Health(Answer):
    """The process answers."""

    status: Literal["OK"] = "OK"


class ChannelState(Answer):
    """Who carries a channel, and whether it can."""

    provider: str
    configured: bool
    resting_until: Moment | None
    """Set while the provider is down and rests; from then on it is tried, one call at a time."""
    rate: float | None
    """How many messages a second it is given, where that is set."""


class Readiness(Answer):
    """READY, or DEGRADED: one of the two stores is away and the other takes events meanwhile, or no process works on
    some queue, so that events are taken and something of them waits."""

    status: Literal["READY", "DEGRADED"]
    parts: dict[str, str]
    channels: dict[Channel, ChannelState]


async def get_health(call: Call[None, NoQuery]) -> Health:
    """Whether the process answers at all; asks nothing else."""
    return Health()


async def get_ready(call: Call[None, NoQuery]) -> Readiness:
    """Whether events can be taken, and which part is not ready."""
    store = call.context.store
    redis, postgres = await asyncio.gather(_state(store.ping()), _state(store.postgres.ping()))
    parts = {"redis": redis, "postgres": postgres}
    if redis != "ready" and postgres != "ready":
        raise Problem(NOT_READY, retry_after_s=2, more={"parts": parts})
    if postgres != "ready" and not store.redis_is_durable:
        raise Problem(
            NOT_READY,
            "Postgres is away and Redis does not keep what it is told.",
            retry_after_s=2,
            more={"parts": parts},
        )
    if redis == "ready" and store.life.is_lost:
        # Events are taken meanwhile.
        parts["redis"] = "it was emptied or is an older one; it is rebuilt from Postgres"
    elif redis == "ready" and (stopped := await _stopped(store)):
        parts["redis"] = stopped
    parts["actors"] = await _state_of_actors(call.context)
    whole = set(parts.values()) == {"ready"}
    resting = await _resting(store)
    channels = {
        channel: ChannelState(
            provider=carrier.provider,
            configured=carrier.configured,
            resting_until=resting.get((channel, carrier.provider)),
            rate=carrier.rate.per_s if carrier.rate else None,
        )
        for channel, carrier in call.context.carriers.items()
    }
    return Readiness(status="READY" if whole else "DEGRADED", parts=parts, channels=channels)


async def get_metrics(call: Call[None, NoQuery]) -> Response:
    """The figures of this process and of storage, for Prometheus. Whether a key is needed is a setting."""
    context = call.context
    if not context.settings.metrics.public:
        caller = await context.authenticator.authenticate(call.request.headers.get("authorization"))
        if caller.role not in VIEWERS:
            raise Problem(FORBIDDEN)
    return await figures(context.registry, context.refresh)


async def _resting(store: Store) -> dict[tuple[Channel, str], int]:
    try:
        async with asyncio.timeout(_PROBE_S):
            return {(each.channel, each.provider): each.until_ms for each in await store.breakers.resting()}
    except (TimeoutError, TocsinError):
        return {}


async def _stopped(store: Store) -> str:
    """Which work waits until Redis has drained, and why; empty when none does."""
    try:
        async with asyncio.timeout(_PROBE_S):
            return "; ".join(dict.fromkeys((await store.memory.stopped()).values()))
    except (TimeoutError, TocsinError):
        return ""


async def _state_of_actors(context: Context) -> str:
    try:
        unattended = await asyncio.wait_for(context.store.unattended(queues.ALL), _PROBE_S)
    except (TimeoutError, TocsinError):
        return "not known while Redis is away"
    return f"no process works on {', '.join(unattended)}" if unattended else "ready"


async def _state(probe: Awaitable[None]) -> str:
    try:
        await asyncio.wait_for(probe, _PROBE_S)
    except TimeoutError:
        return "does not answer in time"
    except TocsinError as error:
        return str(error)
    return "ready"


ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path="/health",
        handler=get_health,
        summary="Whether the process answers",
        tag="operations",
        who=PUBLIC,
        query=None,
        answer=Health,
    ),
    Endpoint(
        method="GET",
        path="/ready",
        handler=get_ready,
        summary="Whether events can be taken",
        tag="operations",
        who=PUBLIC,
        query=None,
        answer=Readiness,
        problems=(NOT_READY,),
    ),
    Endpoint(
        method="GET",
        path="/metrics",
        handler=get_metrics,
        summary="Figures for Prometheus",
        tag="operations",
        who=PUBLIC,
        query=None,
        media_type="text/plain",
        problems=(*AUTHENTICATION, FORBIDDEN, *AWAY),
    ),
)
