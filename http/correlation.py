"""The outermost layer of every request: its correlation id, its time, its metrics, and the answer to a defect."""

import asyncio
import os
import re
import time
from collections.abc import Iterable
from typing import Any, Final

from loguru import logger
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tocsin.http.problems import INTERNAL, UNAVAILABLE, Problem
from tocsin.http.refusals import answer_to
from tocsin.storage.calls import correlation

HEADER: Final = "X-Request-ID"
_ACCEPTABLE: Final = re.compile(r"[A-Za-z0-9._:@/+=-]{1,128}")
_SLOW_S: Final = 1.0
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_HEADER: Final = HEADER.lower().encode()
_SAFETY: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
)
"""Headers of every answer that has none of the name, as ASGI writes them."""


class Measures:
    """Requests by route and status, and the time until their answers began."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("method", "route")
        self.requests = Counter("tocsin_http_requests", "Requests answered.", (*labels, "status"), registry=registry)
        self.seconds = Histogram(
            "tocsin_http_request_seconds", "Time until the answer began, in seconds.", labels, registry=registry
        )


class Correlation:
    """Gives each request an id, the caller's own if it is fit for a log line, and returns it with the answer."""

    def __init__(self, app: ASGIApp, measures: Measures) -> None:
        self.app = app
        self._measures = measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        cid = _cid_of(Request(scope))
        scope.setdefault("state", {})["cid"] = cid
        exchange = _Exchange(scope, send, cid, self._measures)
        token = correlation.set(cid)
        try:
            with logger.contextualize(cid=cid):
                await self._carry_out(scope, receive, exchange)
        finally:
            correlation.reset(token)

    async def _carry_out(self, scope: Scope, receive: Receive, exchange: "_Exchange") -> None:
        try:
            await self.app(scope, receive, exchange.send)
        except ClientDisconnect:
            logger.info("The caller of {} went away", exchange.route)
        except asyncio.CancelledError:
            # The process ends and the time of its requests is over. Whether this one was carried out is not known.
            logger.warning("{} {} was broken off", scope["method"], exchange.route)
            if not exchange.started:
                await answer_to(Problem(UNAVAILABLE, retry_after_s=1), exchange.cid)(scope, receive, exchange.send)
        except Exception:
            logger.exception("{} {} failed", scope["method"], exchange.route)
            if exchange.started:
                raise
            await answer_to(Problem(INTERNAL), exchange.cid)(scope, receive, exchange.send)


class _Exchange:
    """What is known of one request while it is answered."""

    def __init__(self, scope: Scope, send: Send, cid: str, measures: Measures) -> None:
        self._scope = scope
        self._send = send
        self._measures = measures
        self._began_s = time.perf_counter()
        self.cid = cid
        self.started = False

    @property
    def route(self) -> str:
        """The path as declared, so that ids make no labels of their own."""
        route: Any = self._scope.get("route")
        return getattr(route, "path", "unmatched")

    async def send(self, message: Message) -> None:
        """Passes on what is answered, with our headers on its start."""
        if message["type"] == "http.response.start":
            self.started = True
            message["headers"] = self._headers(message.get("headers", ()))
            self._measure(int(message["status"]))
        await self._send(message)

    def _headers(self, given: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        kept = [each for each in given if each[0] != _HEADER]
        there = {name for name, _ in kept}
        return [*kept, (_HEADER, self.cid.encode()), *(each for each in _SAFETY if each[0] not in there)]

    def _measure(self, status: int) -> None:
        took_s = time.perf_counter() - self._began_s
        method = self._scope["method"] if self._scope["method"] in _METHODS else "OTHER"
        self._measures.requests.labels(method, self.route, str(status)).inc()
        self._measures.seconds.labels(method, self.route).observe(took_s)
        if took_s > _SLOW_S:
            logger.warning("{} {} took {:.0f} ms (status {})", method, self.route, took_s * 1000, status)


def _cid_of(request: Request) -> str:
    given = request.headers.get(HEADER, "")
    return given if _ACCEPTABLE.fullmatch(given) else os.urandom(16).hex()
