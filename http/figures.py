"""What a process without HTTP shows on its metrics port: whether it answers, and its figures. Asks for no key: the port
is opened by a setting, for those who collect figures, and belongs behind the firewall."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from loguru import logger
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tocsin.domain.errors import Unavailable

Refresh = Callable[[], Awaitable[None]]

_ALIVE: Final = {"status": "OK"}


def build(registry: CollectorRegistry, refresh: Refresh) -> Starlette:
    """The application of a metrics port. `refresh` brings the gauges of storage up to date; may raise Unavailable."""

    async def health(request: Request) -> Response:
        return JSONResponse(_ALIVE)

    async def metrics(request: Request) -> Response:
        return await figures(registry, refresh)

    return Starlette(routes=[Route("/health", health), Route("/metrics", metrics)])


async def figures(registry: CollectorRegistry, refresh: Refresh | None) -> Response:
    """Every figure of a process, as Prometheus reads it; those of storage are old while Redis is away."""
    if refresh is not None:
        try:
            await refresh()
        except Unavailable as error:
            logger.debug("the gauges of storage are old: {}", error)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
