"""Reconciliation over HTTP and on the command line."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.served import ASHA, SETTINGS, Served, notification_of, problem_of, serving
from tests.stored import ask, draining
from tests.workbench import place_of
from tocsin.domain.settings import Settings

pytestmark = pytest.mark.servers

RUNS = "/api/reconciliation/runs"
IN_TEN_MINUTES = [{"channel": "IN_APP", "after": "0s"}, {"channel": "SMS", "after": "10m"}]


@pytest.fixture
async def served(settings: Callable[..., Settings], redis_url: str, postgres_url: str) -> AsyncIterator[Served]:
    changes: dict[str, Any] = {"policies.soon": IN_TEN_MINUTES, "reconcile.wait": "500ms"}
    async with serving(settings({**SETTINGS, **changes}), redis_url, postgres_url) as made:
        yield made


async def test_a_run_says_what_it_found_and_is_kept(served: Served) -> None:
    body = await served.routed(recipients=[ASHA], channels=["SMS"])
    note = notification_of(body, "asha")
    await served.store._client.hdel(*place_of(served.store._keys, note))
    async with draining(served.store):
        answer = await served.api.post(RUNS, json={"repair": True})
    assert answer.status_code == 201, answer.text
    run = answer.json()
    assert run["checks"]["missing"] == {"before": 1, "repaired": 1, "after": 0, "notJudged": 0}
    assert (run["repair"], run["inSync"], run["difference"], run["ledger"], run["actual"]) == (True, False, 1, 1, 0)
    assert run["worst"] == [{"eventId": body["id"], "count": 1}]
    assert (await served.api.get(f"{RUNS}/{run['id']}")).json() == run


async def test_runs_are_listed_the_newest_first(served: Served) -> None:
    made = [(await served.api.post(RUNS)).json()["id"] for _ in range(3)]
    first = (await served.api.get(RUNS, params={"limit": 2})).json()
    rest = (await served.api.get(RUNS, params={"limit": 2, "cursor": first["nextCursor"]})).json()
    assert [run["id"] for run in first["data"] + rest["data"]] == made[::-1]
    assert rest["nextCursor"] is None
    problem_of(await served.api.get(RUNS, params={"cursor": "x"}), 422, "bad_cursor")


async def test_one_run_is_under_way_at_a_time(served: Served) -> None:
    async with served.store.lock("reconcile"):
        problem = problem_of(await served.api.post(RUNS), 409, "reconciling")
    assert "under way" in problem["detail"]
    assert (await served.api.post(RUNS)).status_code == 201


async def test_it_is_for_admins(served: Served) -> None:
    sender = served.client(await served.key("SENDER"))
    for answer in (await sender.post(RUNS), await sender.get(RUNS), await sender.get("/api/reconciliation/preflight")):
        problem_of(answer, 403, "forbidden")
    problem_of(await served.api.get(f"{RUNS}/5f0c9c9e-0000-4000-8000-000000000000"), 404, "not_found")


async def test_what_is_due_soon_is_looked_at_beforehand(served: Served) -> None:
    people = [ASHA, {"id": "bina", "phone": "+14155550102"}, {"id": "chand", "phone": "+14155550103"}]
    bodies = [
        await served.routed(
            recipients=[person], policy="soon", deliveryStrategy="ESCALATION", channels=["IN_APP", "SMS"]
        )
        for person in people
    ]
    # One is read in a way that Redis did not hear of, one has no address any more.
    await served.store.postgres.call(ask, "update notifications set read_at = now() where user_id = 'bina'")
    await served.store._client.delete(served.store._keys.contacts(bodies[2]["id"]))
    await served.store.postgres.call(ask, 'update events set recipients = \'[{"id": "chand"}]\' where true')
    await served.api.put("/api/users/chand", json={"email": "chand@example.org"})
    seen = (await served.api.get("/api/reconciliation/preflight")).json()
    assert (seen["due"], seen["whole"]) == (3, True)
    assert seen["hindered"] == {"read": 1, "no_address": 1}
    assert {each["eventId"] for each in seen["events"]} == {bodies[1]["id"], bodies[2]["id"]}
