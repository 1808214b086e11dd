"""Filters that hold in Redis while Postgres is away: so many and no more, for whatever starts is compared with them."""

from collections.abc import AsyncIterator, Callable
from uuid import UUID

import httpx
import pytest

from tests.served import ASHA, SETTINGS, Served, problem_of, serving
from tests.stored import NOWHERE
from tocsin.actors.fan_out import fan_out
from tocsin.actors.route import route
from tocsin.domain.delivery import Channel
from tocsin.domain.event import Contact
from tocsin.domain.settings import Settings
from tocsin.storage import stops
from tocsin.storage.cancellations import Cancellation, Wanted

pytestmark = pytest.mark.servers

TYPES = ("event.one", "event.two", "event.three")


@pytest.fixture
async def alone(
    settings: Callable[..., Settings], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Served]:
    """Without Postgres, and with room for two filters."""
    monkeypatch.setattr(stops, "_MOST_FIELDS", 8)
    async with serving(settings(SETTINGS), redis_url, NOWHERE) as made:
        made.store.life.adopt("", 0)
        await made.store.profiles.keep([Contact(id="asha", email=ASHA["email"], version=1)])
        yield made


async def stop(alone: Served, kind: str, key: str = "") -> httpx.Response:
    """What asking to stop all events of a type is answered."""
    headers = {"Idempotency-Key": key or kind}
    return await alone.api.post("/api/events/cancel", json={"type": kind}, headers=headers)


async def started(alone: Served) -> list[str]:
    """The events of which an email starts now."""
    claims = await alone.store.attempts.claim(Channel.EMAIL, "t", 9, lease_ms=9_000, attempts=3, resend=True)
    return [str(claim.event) for claim in claims]


async def test_past_so_many_filters_another_is_refused_and_does_nothing(alone: Served) -> None:
    posted = {
        kind: (await alone.posted(type=kind, recipients=[ASHA], channels=["EMAIL"], notificationPriority="HIGH"))["id"]
        for kind in TYPES
    }
    assert [(await stop(alone, kind)).status_code for kind in TYPES[:2]] == [200, 200]
    told = await alone.store.facts.length()
    refused = await stop(alone, TYPES[2])
    problem_of(refused, 503, "too_many_filters")
    assert refused.headers["retry-after"] == "30"
    assert await alone.store.facts.length() == told
    for event in posted.values():
        await fan_out(alone.store, event)
        await route(alone.store, event, 0)
    assert await started(alone) == [posted[TYPES[2]]]
    named = await alone.api.post("/api/events/cancel", json={"ids": [posted[TYPES[2]]]})
    assert named.json()["status"] == "RUNNING", "events that are named need no filter"


async def test_a_filter_that_was_refused_is_taken_when_another_has_ended(alone: Served) -> None:
    first, _ = [(await stop(alone, kind)).json()["id"] for kind in TYPES[:2]]
    problem_of(await stop(alone, TYPES[2]), 503, "too_many_filters")
    await alone.store.stops.let_go(UUID(first))
    taken = await stop(alone, TYPES[2])
    assert (taken.status_code, taken.json()["status"]) == (200, "RUNNING")
    assert UUID(taken.json()["id"]) in await alone.store.stops.held()


async def test_what_was_answered_holds_however_many_there_are(alone: Served) -> None:
    """Redis was lost, and others were taken before whoever rebuilds it, or goes on, came to this one."""
    for kind in TYPES[:2]:
        await stop(alone, kind)
    asked = Cancellation(UUID(int=7), 1, "ops", "c1", "wrong", Wanted(type=TYPES[2], to_ms=2))
    await alone.store.stops.hold(asked)
    assert asked.id in await alone.store.stops.held()
    await alone.store.stops.begin(asked)
