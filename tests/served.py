"""The HTTP side as its callers see it: the real application on a real Redis and Postgres, without a socket between."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from uuid import UUID

import httpx
import jwt
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from tocsin.actors.fan_out import fan_out
from tocsin.actors.persist import Persister
from tocsin.actors.route import route
from tocsin.channels.sandbox.outbox import Outbox
from tocsin.domain.delivery import Channel
from tocsin.domain.settings import Settings
from tocsin.http.application import build
from tocsin.http.context import Carrier, Context
from tocsin.storage.postgres import Postgres
from tocsin.storage.store import Store

ADMIN_KEY = "tk_admin_for_tests_only_0123456789"
JWT_SECRET = "only-for-tests-only-for-tests-only-for-tests"
PUBLIC_URL = "https://tell.example.org"
TWILIO_TOKEN = "twilio-token-for-tests"

SETTINGS: Mapping[str, Any] = {
    "auth.admin_key": ADMIN_KEY,
    "auth.jwt_secret": JWT_SECRET,
    "http.public_url": PUBLIC_URL,
    "sms.twilio.account_sid": "AC" + "0" * 32,
    "sms.twilio.auth_token": TWILIO_TOKEN,
    "sms.twilio.from_number": "+15005550006",
}

Value = TypeVar("Value")


class Served:
    """One application, its storage, and clients that speak with it."""

    def __init__(self, app: Starlette, context: Context) -> None:
        self.app = app
        self.context = context
        self.store = context.store
        self.api = self.client(ADMIN_KEY)

    def client(self, token: str | None = None, **headers: str) -> httpx.AsyncClient:
        """A client with a token."""
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url="http://tocsin", headers=headers, timeout=20
        )

    def user(self, name: str) -> httpx.AsyncClient:
        """A client with a user's own token."""
        return self.client(token_of(name))

    async def key(self, role: str) -> str:
        """The secret of a new key."""
        answer = await self.api.post("/api/keys", json={"name": f"the {role}", "role": role})
        assert answer.status_code == 201, answer.text
        secret: str = answer.json()["secret"]
        return secret

    async def posted(self, **event: Any) -> dict[str, Any]:
        """Posts an event and answers what was answered."""
        answer = await self.api.post("/api/notifications", json=EVENT | event)
        assert answer.status_code == 202, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def routed(self, **event: Any) -> dict[str, Any]:
        """Posts an event and carries it as far as its inboxes and its flights."""
        body = await self.posted(**event)
        await fan_out(self.store, body["id"])
        for chunk in range(1 + body["recipientCount"] // 100):
            await route(self.store, body["id"], chunk)
        await self.stored()
        return body

    async def stored(self) -> None:
        """Drains the journal."""
        await Persister(self.store, "tests").drain()


EVENT: Mapping[str, Any] = {"type": "event.approval", "message": "Your event has been approved"}
ASHA = {"id": "asha", "email": "asha@example.org", "phone": "+14155550101", "name": "Asha"}
BINA = {"id": "bina", "email": "bina@example.org", "phone": "+14155550102"}


@asynccontextmanager
async def serving(settings: Settings, redis_url: str, postgres_url: str, **given: Any) -> AsyncIterator[Served]:
    """The application on given servers."""
    settings = settings.with_values({"redis.url": redis_url, "postgres.url": postgres_url})
    postgres = Postgres(settings.postgres)
    store = await Store.open(settings, postgres)
    carriers = {Channel.SMS: Carrier("sandbox", True, receipts=True), Channel.EMAIL: Carrier("smtp", False)}
    context = Context(
        settings=settings,
        store=store,
        registry=CollectorRegistry(),
        carriers=carriers,
        outbox=Outbox(),
        **given,
    )
    try:
        yield Served(build(context), context)
    finally:
        await store.close()
        await postgres.close()


@asynccontextmanager
async def storing(served: Served) -> AsyncIterator[None]:
    """Drains the journal again and again for as long as this lasts."""
    over = asyncio.Event()

    async def drain() -> None:
        while not over.is_set():
            await served.stored()
            await asyncio.sleep(0.01)

    draining = asyncio.create_task(drain())
    try:
        yield
    finally:
        over.set()
        await draining


def token_of(user: str, *, secret: str = JWT_SECRET, ends_in_s: int = 600, **claims: Any) -> str:
    """A user's token, as an application of the operator's would sign it."""
    return jwt.encode({"sub": user, "exp": int(time.time()) + ends_in_s, **claims}, secret, algorithm="HS256")


def notification_of(answer: Mapping[str, Any], user: str) -> UUID:
    """The notification of `user` that a posting's answer names."""
    (found,) = [each["id"] for each in answer["notifications"] if each["recipientId"] == user]
    return UUID(found)


def problem_of(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document of an answer, which must be one of this status and code."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["code"], body["status"]) == (status, code, status), body
    assert body["mend"]
    assert body["correlationId"] == answer.headers["x-request-id"]
    return body


async def eventually(look: Callable[[], Awaitable[Value]], limit_s: float = 10.0) -> Value:
    """What `look` answers once it is true."""
    deadline = asyncio.get_running_loop().time() + limit_s
    while not (value := await look()):
        assert asyncio.get_running_loop().time() < deadline, "it did not come about"
        await asyncio.sleep(0.01)
    return value
