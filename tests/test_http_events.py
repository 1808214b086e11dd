"""Events over HTTP: their counts, and following them (F4, T8)."""

from collections.abc import AsyncIterator, Callable
from uuid import UUID

import pytest

from tests.open_page import opened
from tests.served import ADMIN_KEY, ASHA, BINA, SETTINGS, Served, problem_of, serving, storing
from tests.stored import ask
from tocsin.domain.settings import Settings
from tocsin.storage import queries

pytestmark = pytest.mark.servers

MISSING = "0199a0c0-0000-7000-8000-000000000000"
CHAND = {"id": "chand", "email": "chand@example.org"}


@pytest.fixture
async def served(settings: Callable[..., Settings], redis_url: str, postgres_url: str) -> AsyncIterator[Served]:
    async with serving(settings(SETTINGS), redis_url, postgres_url) as made:
        yield made


async def test_an_event_tells_whom_it_has_and_what_became_of_each_delivery(served: Served) -> None:
    posted = await served.posted(recipients=[ASHA, BINA, CHAND], channels=["IN_APP", "SMS", "EMAIL"])
    before = (await served.api.get(f"/api/events/{posted['id']}")).json()
    assert before["status"] == "PENDING"
    assert [before["counts"][name] for name in ("matched", "expected", "routed", "missing", "difference")] == [
        3, 3, 0, 3, 9,
    ]  # fmt: skip
    body = await served.routed(recipients=[ASHA, BINA, CHAND], channels=["IN_APP", "SMS", "EMAIL"], title="Hello")
    event = (await served.api.get(f"/api/events/{body['id']}")).json()
    counts = event["counts"]
    assert event["status"] == "COMPLETED"
    assert [counts[name] for name in ("matched", "expected", "routed", "missing", "difference")] == [3, 3, 3, 0, 0]
    assert [counts[name] for name in ("sent", "delivered", "failed", "cancelled", "uncertain", "waiting")] == [
        0, 3, 0, 0, 0, 5,
    ]  # fmt: skip
    assert (counts["listed"], counts["suppressed"]) == (3, {"no_address": 1})
    (listed, *_) = (await served.api.get("/api/events")).json()["data"]
    assert listed == event


async def test_the_counts_are_the_same_once_they_are_summed_up_and_need_no_rows(served: Served) -> None:
    body = await served.routed(recipients=[ASHA, BINA])
    before = (await served.api.get(f"/api/events/{body['id']}")).json()
    assert await served.store.postgres.call(queries.sum_up, 1_000) > 0
    await served.store.postgres.call(ask, "delete from deliveries")
    await served.store.postgres.call(ask, "delete from notifications")
    assert (await served.api.get(f"/api/events/{body['id']}")).json() == before
    wrong = await served.store.postgres.call(queries.miscounted, [UUID(body["id"])], mend=True)
    assert sum(wrong.values()) > 0
    after = (await served.api.get(f"/api/events/{body['id']}")).json()["counts"]
    assert (after["routed"], after["missing"], after["deliveries"]) == (0, 2, {})


async def test_an_event_is_followed_until_nothing_more_is_to_go_out(served: Served) -> None:
    body = await served.routed(recipients=[ASHA])
    path = f"/api/events/{body['id']}/stream"
    async with opened(served, token=ADMIN_KEY, path=path) as page:
        ((kind, first, identity),) = await page.told(lambda told: len(told) == 1)
        assert (kind, first["final"], first["counts"]["waiting"]) == ("counts", False, 2)
        async with storing(served):
            await served.api.post(f"/api/events/{body['id']}/cancel")
        told = await page.told(lambda told: bool(told) and told[-1][1]["final"])
        assert (told[-1][1]["counts"]["waiting"], told[-1][1]["counts"]["cancelled"]) == (0, 2)
    assert identity is not None
    # Who was away is told the newest, and who has that nothing: that ends an EventSource.
    again = await served.api.get(path, headers={"Last-Event-ID": identity})
    assert (again.status_code, again.text.count("event: counts"), told[-1][2] in again.text) == (200, 1, True)
    assert (await served.api.get(path, headers={"Last-Event-ID": told[-1][2]})).status_code == 204


async def test_what_is_complete_is_not_final_before_all_its_people_are_stored(served: Served) -> None:
    body = await served.routed(recipients=[ASHA], channels=["IN_APP"])
    path = f"/api/events/{body['id']}/stream"
    await served.store.postgres.call(ask, "update events set expected = 2")
    async with opened(served, token=ADMIN_KEY, path=path) as page:
        ((_, first, _),) = await page.told(lambda told: len(told) == 1)
        assert (first["status"], first["counts"]["waiting"], first["counts"]["missing"]) == ("COMPLETED", 0, 1)
        assert first["final"] is False
        await served.store.postgres.call(ask, "update events set expected = 1")
        assert (await page.told(lambda told: told[-1][1]["final"]))[-1][1]["counts"]["missing"] == 0
    # Who is missing for long is not waited for.
    await served.store.postgres.call(
        ask, "update events set expected = 2, completed_at = completed_at - interval '1 hour'"
    )
    assert '"final":true' in (await served.api.get(path)).text


async def test_only_what_is_there_is_followed_and_not_by_everybody(served: Served) -> None:
    path = f"/api/events/{MISSING}/stream"
    problem_of(await served.api.get(path), 404, "not_found")
    problem_of(await served.user("asha").get(path), 403, "forbidden")
    body = await served.routed(recipients=[ASHA])
    assert (await served.api.head(f"/api/events/{body['id']}/stream")).status_code == 200
    async with opened(served, token=ADMIN_KEY, path=f"/api/events/{body['id']}/stream") as page:
        await page.told(lambda told: len(told) == 1)
        served.context.stopping.set()
