"""Posting events over HTTP: what is taken, what is refused, and what is answered."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.served import ASHA, BINA, EVENT, SETTINGS, Served, problem_of, serving
from tocsin.domain.settings import Settings

pytestmark = pytest.mark.servers


@pytest.fixture
async def served(settings: Callable[..., Settings], redis_url: str, postgres_url: str) -> AsyncIterator[Served]:
    async with serving(settings(SETTINGS), redis_url, postgres_url) as made:
        yield made


async def test_an_event_is_answered_in_the_shape_that_was_promised(served: Served) -> None:
    answer = await served.api.post("/api/notifications", json={**EVENT, "recipients": [ASHA, BINA]})
    assert answer.status_code == 202, answer.text
    body = answer.json()
    assert {"success": True, "message": "Notification queued for delivery", "recipientCount": 2}.items() <= body.items()
    assert body["durability"] == "postgres"
    assert [each["recipientId"] for each in body["notifications"]] == ["asha", "bina"]
    assert len({each["id"] for each in body["notifications"]} | {body["id"]}) == 3
