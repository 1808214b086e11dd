"""Events for whole audiences: topics, segments, subscribers, everyone (F1, F2, F3)."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.served import SETTINGS, Served, problem_of, serving
from tocsin.actors.fan_out import fan_out
from tocsin.actors.route import route
from tocsin.domain.settings import Settings

pytestmark = pytest.mark.servers


@pytest.fixture
async def served(settings: Callable[..., Settings], redis_url: str, postgres_url: str) -> AsyncIterator[Served]:
    async with serving(settings(SETTINGS), redis_url, postgres_url) as made:
        yield made


async def reached(served: Served, **audience: Any) -> dict[str, Any]:
    """Posts an event, carries it to its end, and answers it as it is shown."""
    posted = await served.posted(channels=["IN_APP"], **audience)
    await carry(served, posted["id"])
    answer = await served.api.get(f"/api/events/{posted['id']}")
    shown: dict[str, Any] = answer.json()
    return shown


async def carry(served: Served, event: str) -> None:
    """What the actors of fan-out and routing do, one after the other."""
    chunk = 0
    while True:
        await fan_out(served.store, event)
        made = int(await served.store._client.hget(served.store._keys.event(event), "chunks"))
        if chunk == made:
            break
        for number in range(chunk, made):
            await route(served.store, event, number)
        chunk = made
    await served.stored()


async def people_of(served: Served, event: str) -> list[str]:
    """Who has a notification of an event."""

    def ask() -> list[str]:
        from tocsin.storage.database import cursor

        with cursor() as query:
            query.execute("select user_id from notifications where event_id = %s order by user_id", (event,))
            return [user for (user,) in query.fetchall()]

    return await served.store.postgres.call(ask)


async def family(served: Served) -> None:
    for user in ("asha", "bina", "chand"):
        await served.api.put(f"/api/users/{user}", json={"email": f"{user}@example.org"})
    assert (await served.api.put("/api/topics/family:17", json={"kind": "family"})).status_code == 200
    members = [{"userId": "asha", "roles": ["head"]}, {"userId": "bina", "roles": []}]
    answer = await served.api.post("/api/topics/family:17/members", json={"members": members})
    assert answer.json() | {"added": 2, "changed": 0, "unknown": 0, "rejected": []} == answer.json()


async def test_an_event_for_a_topic_reaches_its_members(served: Served) -> None:
    await family(served)
    shown = await reached(served, topics=[{"key": "family:17"}])
    assert await people_of(served, shown["id"]) == ["asha", "bina"]
    assert (shown["status"], shown["counts"]["notifications"]) == ("COMPLETED", 2)


async def test_an_unknown_topic_is_named(served: Served) -> None:
    await family(served)
    body = {"type": "t", "message": "m", "topics": [{"key": "family:17"}, {"key": "family:18"}]}
    problem = problem_of(await served.api.post("/api/notifications", json=body), 422, "unknown_topic")
    assert (problem["field"], problem["detail"]) == ("/topics/1/key", "There is no topic family:18.")
