"""Alerts are raised once in a while, counted, and posted signed."""

import base64
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from standardwebhooks import Webhook

from tests.served import eventually
from tocsin.actors.alerts import Alerts
from tocsin.channels.sandbox.web import WebAnswer, WebRequest, WebServer
from tocsin.domain.errors import SettingError
from tocsin.domain.settings import Settings
from tocsin.storage.postgres import Postgres
from tocsin.storage.store import Store

pytestmark = pytest.mark.servers

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()


class Receiver:
    """A server that takes webhooks, or answers as it is told first."""

    def __init__(self) -> None:
        self.requests: list[WebRequest] = []
        self.answers: list[int] = []
        self.server = WebServer(self.take)

    async def take(self, request: WebRequest) -> WebAnswer:
        self.requests.append(request)
        return WebAnswer(self.answers.pop(0) if self.answers else 200, {}, {"Location": "/elsewhere"})


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    yield made
    await made.server.close()


@pytest.fixture
async def alerts(
    settings: Callable[..., Settings], receiver: Receiver, redis_url: str
) -> AsyncIterator[Callable[..., Any]]:
    """Makes the alerts of one process."""
    url = await receiver.server.start()
    stores = []

    async def make(registry: CollectorRegistry | None = None, **changes: str) -> Alerts:
        given = {"redis.url": redis_url, "postgres.url": "postgresql://127.0.0.1:1/nowhere"}
        hook = {"alerts.webhook_url": f"{url}/hook", "alerts.webhook_secret": SECRET}
        wanted = settings(given | hook | {name.replace("__", "."): value for name, value in changes.items()})
        stores.append(await Store.open(wanted, Postgres(wanted.postgres)))
        return Alerts(stores[-1], registry or CollectorRegistry())

    yield make
    for store in stores:
        await store.close()
        await store.postgres.close()


async def test_an_alert_is_counted_and_posted_with_a_signature_that_its_receiver_can_check(
    alerts: Callable[..., Any], receiver: Receiver
) -> None:
    registry = CollectorRegistry()
    raising = await alerts(registry)
    assert await raising.raise_alert("bad_facts", "Postgres refused something.", {"refused": 1})
    await raising.close()
    (request,) = receiver.requests
    told = Webhook(SECRET).verify(request.body, dict(request.headers))
    assert (told["type"], told["data"]) == (
        "alert.bad_facts",
        {"text": "Postgres refused something.", "counts": {"refused": 1}},
    )
    assert registry.get_sample_value("tocsin_alerts_total", {"kind": "bad_facts"}) == 1


async def test_the_same_kind_is_raised_once_in_a_while_whoever_raises_it(
    alerts: Callable[..., Any], receiver: Receiver
) -> None:
    one, other = await alerts(), await alerts()
    raised = [await each.raise_alert(kind, "It.") for each in (one, other, one) for kind in ("a", "b")]
    assert raised == [True, True, False, False, False, False]
    for each in (one, other):
        await each.close()
    assert len(receiver.requests) == 2


async def test_it_is_raised_again_when_its_time_is_over(alerts: Callable[..., Any]) -> None:
    raising = await alerts(alerts__every="50ms")
    assert await raising.raise_alert("a", "It.")

    async def again() -> bool:
        return bool(await raising.raise_alert("a", "It."))

    await eventually(again)
    await raising.close()


async def test_a_receiver_that_fails_is_asked_again_under_the_same_id(
    alerts: Callable[..., Any], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tocsin.actors.alerts._WAITS_S", (0.01, 0.01))
    receiver.answers = [500, 302]
    raising = await alerts()
    await raising.raise_alert("a", "It.")
    await raising.close()
    assert len(receiver.requests) == 3
    assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1
    assert {request.path for request in receiver.requests} == {"/hook"}


async def test_a_receiver_that_never_takes_it_is_not_asked_for_ever(
    alerts: Callable[..., Any], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tocsin.actors.alerts._WAITS_S", (0.01, 0.01))
    receiver.answers = [500] * 9
    raising = await alerts()
    await raising.raise_alert("a", "It.")
    await raising.close()
    assert len(receiver.requests) == 3


async def test_it_is_raised_without_redis_too(alerts: Callable[..., Any], receiver: Receiver) -> None:
    raising = await alerts(redis__url="redis://127.0.0.1:1/0")
    assert [await raising.raise_alert("a", "It.") for _ in range(2)] == [True, False]
    await raising.close()
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("secret", ["", "short", "whsec_c2hvcnQ=", "no base64 at all, is it? ###"])
def test_alerts_are_not_sent_with_a_secret_that_is_none(settings: Callable[..., Settings], secret: str) -> None:
    with pytest.raises(SettingError, match="webhook_secret"):
        settings({"alerts.webhook_url": "https://hooks.example.org/", "alerts.webhook_secret": secret})
