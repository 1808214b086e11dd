"""Alerts: what a person should hear of, said once in a while and not again at every look.

A line at ERROR, the counter `tocsin_alerts_total`, and a POST to `alerts.webhook_url` that is signed as Standard
Webhooks says (https://www.standardwebhooks.com). That address is the operator's own: one inside a private network is
let pass, and no redirect from it is followed.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Final
from uuid import uuid4

import httpx
from loguru import logger
from prometheus_client import CollectorRegistry, Counter
from standardwebhooks import Webhook

from tocsin.domain.errors import Unavailable
from tocsin.domain.setting_sections import AlertSettings
from tocsin.storage.store import Store

_TIMEOUT_S: Final = 5.0
_WAITS_S: Final = (1.0, 5.0)
"""Between the tries of one POST: three in all."""
_MOST_WAITING: Final = 20


@cache
def _counter(registry: CollectorRegistry) -> Counter:
    """One for each registry: actors and HTTP of one process share it."""
    return Counter("tocsin_alerts", "Alerts that were raised", ["kind"], registry=registry)


class Alerts:
    """What one process raises. Made and used on one event loop."""

    def __init__(self, store: Store, registry: CollectorRegistry) -> None:
        self._store = store
        self._settings: AlertSettings = store.settings.alerts
        self._counter = _counter(registry)
        self._raised_s: dict[str, float] = {}
        self._posting: set[asyncio.Task[None]] = set()

    async def raise_alert(self, kind: str, text: str, counts: Mapping[str, int] | None = None) -> bool:
        """Raises an alert of a `kind` such as "bad_facts", unless any process did within `alerts.every`: then False.
        `text` is one sentence without secrets and addresses. Never raises; a webhook that fails is logged."""
        if not await self._is_news(kind):
            return False
        figures = dict(counts or {})
        logger.error("alert {}: {} {}", kind, text, json.dumps(figures) if figures else "")
        self._counter.labels(kind).inc()
        if self._settings.webhook_url is not None and len(self._posting) < _MOST_WAITING:
            task = asyncio.create_task(self._post(kind, text, figures))
            self._posting.add(task)
            task.add_done_callback(self._posting.discard)
        return True

    async def close(self, limit_s: float = _TIMEOUT_S) -> None:
        """Waits for POSTs that are under way, at most `limit_s` seconds."""
        if self._posting:
            _, late = await asyncio.wait(set(self._posting), timeout=limit_s)
            for task in late:
                task.cancel()

    async def _is_news(self, kind: str) -> bool:
        every_s, now_s = self._settings.every / 1000, time.monotonic()
        if now_s - self._raised_s.get(kind, -every_s) < every_s:
            return False
        try:
            news = await self._store.once(f"alert:{kind}", self._settings.every)
        except Unavailable:
            # Then each process says it for itself.
            news = True
        self._raised_s[kind] = now_s
        return news

    async def _post(self, kind: str, text: str, counts: Mapping[str, int]) -> None:
        now = datetime.now(UTC)
        told = {"type": f"alert.{kind}", "timestamp": now.isoformat(), "data": {"text": text, "counts": counts}}
        body, identifier = json.dumps(told), f"msg_{uuid4().hex}"
        async with httpx.AsyncClient(timeout=_TIMEOUT_S, follow_redirects=False) as client:
            for wait_s in (*_WAITS_S, None):
                why = await self._try(client, identifier, body)
                if why is None:
                    return
                if wait_s is not None:
                    await asyncio.sleep(wait_s)
        logger.error("the alert {} could not be posted to alerts.webhook_url: {}", kind, why)

    async def _try(self, client: httpx.AsyncClient, identifier: str, body: str) -> str | None:
        """Why a POST failed; None when it did not."""
        assert self._settings.webhook_url is not None  # noqa: S101  # _post is begun only where it is set
        assert self._settings.webhook_secret is not None  # noqa: S101  # checked when the settings are read
        # Signed anew each time: a receiver refuses what is more than five minutes old.
        now = datetime.now(UTC)
        headers = {
            "content-type": "application/json",
            "webhook-id": identifier,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(self._settings.webhook_secret).sign(identifier, now, body),
        }
        try:
            answer = await client.post(self._settings.webhook_url, content=body, headers=headers)
        except httpx.HTTPError as error:
            return type(error).__name__
        return None if answer.is_success else f"status {answer.status_code}"
