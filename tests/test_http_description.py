"""The OpenAPI document against the application: made-up requests, fit and unfit, find no 5xx and no answer that is not
described."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import hypothesis
import pytest
import schemathesis
import uvicorn
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.served import ADMIN_KEY, ASHA, SETTINGS, serving, token_of
from tocsin.actors.persist import Persister
from tocsin.domain.settings import Settings

pytestmark = [
    pytest.mark.servers,
    pytest.mark.timeout(240),
    # The application, in a thread beside, may draw a number of `random` while a request is being made up.
    pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies"),
]

CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
EXAMPLES = 5
ENDLESS = {"/api/stream"}
"""An answer that does not end is looked at in test_http_inbox.py."""
PARTLY = {"/api/notifications/bulk"}
"""What is wrong with one part of these is told of that part; the others are taken."""


@contextmanager
def listening(settings: Settings, redis_url: str, postgres_url: str) -> Iterator[str]:
    """The application behind a socket, in a thread of its own; its journal is drained all the time."""
    taken = socket.create_server(("127.0.0.1", 0))
    ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        async with serving(settings, redis_url, postgres_url) as served:
            await served.routed(recipients=[ASHA])
            server = uvicorn.Server(uvicorn.Config(served.app, log_config=None, lifespan="off"))
            server.capture_signals = suppress  # type: ignore[method-assign, assignment]  # a thread has no signals
            draining = asyncio.create_task(drain(Persister(served.store, "tests")))
            running = asyncio.create_task(server.serve([taken]))
            ready.set()
            await stop.wait()
            server.should_exit = True
            await running
            while not draining.done():
                # More than once: a cancellation that meets an answer of Redis in the same step is lost in the client.
                draining.cancel()
                await asyncio.wait([draining], timeout=0.2)

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    try:
        assert ready.wait(20)
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()
        taken.close()


async def drain(persister: Persister) -> None:
    while True:
        await persister.drain()
        await asyncio.sleep(0.02)


@pytest.fixture
def url(settings: Callable[..., Settings], redis_url: str, postgres_url: str) -> Iterator[str]:
    with listening(settings({**SETTINGS, "http.public_url": ""}), redis_url, postgres_url) as made:
        yield made


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_whatever_is_asked_the_answer_is_one_that_is_described(url: str, mode: GenerationMode) -> None:
    described = schemathesis.openapi.from_url(f"{url}/openapi.json")
    tried = 0
    for found in described.get_all_operations():
        operation = found.ok()
        if operation.path in ENDLESS:
            continue
        for token in tokens(operation):
            check(operation, mode, url, token)
            tried += 1
    assert tried > 30


def tokens(operation: Any) -> list[str | None]:
    """A token of each kind that the operation takes, and none."""
    schemes = {name for each in operation.definition.raw["security"] for name in each}
    kinds = {"apiKey": ADMIN_KEY, "userToken": token_of("asha")}
    return [token for name, token in kinds.items() if name in schemes] or [None]


def check(operation: Any, mode: GenerationMode, url: str, token: str | None) -> None:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    checks = [each for each in CHECKS if operation.path not in PARTLY or each is not negative_data_rejection]

    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def holds(case: Any) -> None:
        case.call_and_validate(base_url=url, headers=headers, checks=checks)

    # What takes nothing can be asked in no wrong way.
    with suppress(hypothesis.errors.Unsatisfiable):
        holds()
