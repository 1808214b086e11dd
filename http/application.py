"""Puts the HTTP side together: every resource's endpoints, the layer around them, the document that describes them."""

from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from importlib.metadata import version
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from tocsin.domain.errors import TocsinError
from tocsin.http import (
    bad_facts,
    callbacks,
    cancelling,
    dead_letters,
    deliveries,
    documentation,
    event_stream,
    events,
    keys,
    many_users,
    memberships,
    notifications,
    operations,
    outbox,
    posting,
    realtime,
    receipts,
    reconciliation,
    settling,
    subscriptions,
    topics,
    users,
)
from tocsin.http.context import Context
from tocsin.http.correlation import Correlation, Measures
from tocsin.http.endpoint import Endpoint, answer
from tocsin.http.openapi import document
from tocsin.http.refusals import answer_to, from_exception

_RESOURCES: Final = (
    posting,
    notifications,
    events,
    event_stream,
    cancelling,
    deliveries,
    settling,
    dead_letters,
    bad_facts,
    users,
    many_users,
    subscriptions,
    topics,
    memberships,
    keys,
    reconciliation,
    receipts,
    callbacks,
    realtime,
    operations,
    documentation,
)


def build(context: Context, extra: Sequence[Route] = ()) -> Starlette:
    """The application. `extra` are routes of pages, which no document describes."""
    application = Starlette(
        routes=[*(_route(endpoint, context) for endpoint in endpoints(context)), *extra],
        middleware=[Middleware(Correlation, measures=Measures(context.registry))],
        exception_handlers={TocsinError: _refuse, HTTPException: _refuse},
    )
    # A path with a slash too many is not another name of the right one.
    application.router.redirect_slashes = False
    application.state.described = cache(lambda: document(endpoints(context), context.settings, version("tocsin")))
    return application


def endpoints(context: Context) -> list[Endpoint]:
    """Everything that is served, in the order in which paths are tried."""
    found = [endpoint for resource in _RESOURCES for endpoint in resource.ENDPOINTS]
    return found + list(outbox.ENDPOINTS) if context.outbox is not None else found


def _route(endpoint: Endpoint, context: Context) -> Route:
    return Route(endpoint.path, _serve(endpoint, context), methods=[endpoint.method], name=endpoint.handler.__name__)


def _serve(endpoint: Endpoint, context: Context) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        return await answer(endpoint, context, request)

    return serve


async def _refuse(request: Request, error: Exception) -> Response:
    headers = error.headers if isinstance(error, HTTPException) else None
    if isinstance(error, HTTPException) and error.status_code == 405:
        headers = {"Allow": ", ".join(sorted(_methods_at(request)))}
    return answer_to(from_exception(error), request.state.cid, headers)


def _methods_at(request: Request) -> set[str]:
    """What the path takes. Each method is a route of its own, and Starlette names those of the first alone."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    return {
        method
        for route in routes
        if route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    }
