"""Events for whole audiences: topics, segments, subscribers, everyone (F1, F2, F3)."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.served import SETTINGS, Served, problem_of, serving
from tocsin.actors import walk
from tocsin.actors.fan_out import fan_out
from tocsin.actors.route import route
from tocsin.domain.errors import PostgresAway
from tocsin.domain.settings import Settings
from tocsin.storage import topics
from tocsin.storage.database import cursor

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


async def test_a_topic_that_another_process_removed_is_named_at_once(served: Served) -> None:
    await family(served)
    body = {"type": "t", "message": "m", "topics": [{"key": "family:17"}]}
    assert (await served.api.post("/api/notifications", json=body)).status_code == 202
    assert await served.store.postgres.call(topics.delete_topic, "family:17")
    problem_of(await served.api.post("/api/notifications", json=body), 422, "unknown_topic")


async def test_many_people_are_stored_at_once_and_the_wrong_ones_are_named(served: Served) -> None:
    people = [
        {"id": "asha", "email": "asha@example.org", "attributes": {"gotra": "Sharma", "age": 41}},
        {"id": "b i n a"},
        {"id": "chand", "phone": "12"},
        {"id": "dev", "attributes": {"age": {"is": 4}}},
        {"id": "esha", "active": False},
    ]
    answer = (await served.api.post("/api/users", json={"users": people})).json()
    assert answer["stored"] == 2
    assert [(each["index"], each["code"], each["field"]) for each in answer["rejected"]] == [
        (1, "bad_user_id", "/id"),
        (2, "bad_phone", "/phone"),
        (3, "bad_attribute", "/attributes/age"),
    ]
    asha = (await served.api.get("/api/users/asha")).json()
    assert (asha["attributes"], asha["active"]) == ({"gotra": "Sharma", "age": 41}, True)
    assert (await served.api.get("/api/users/esha")).json()["active"] is False
    # Nobody has asked for them yet.
    assert await served.store._client.keys("*:profile:*") == []


async def test_parts_of_an_audience_are_one_union_and_nobody_is_in_it_twice(served: Served) -> None:
    people = [{"id": f"u{number}", "attributes": {"age": number}} for number in range(30)]
    await served.api.post("/api/users", json={"users": [*people, {"id": "quiet", "active": False}]})
    await served.api.put("/api/topics/t1", json={})
    members = [{"userId": f"u{number}"} for number in range(5, 15)] + [{"userId": "stranger"}, {"userId": "quiet"}]
    joined = (await served.api.post("/api/topics/t1/members", json={"members": members})).json()
    assert (joined["unknown"], joined["unknownIds"]) == (1, ["stranger"])
    await served.api.put("/api/users/u20/subscriptions", json={"types": [{"type": "EVENT_APPROVAL"}]})
    await served.api.put("/api/users/u21/subscriptions", json={"types": [{"type": "event.approval", "active": False}]})
    shown = await reached(
        served,
        recipientIds=["u0", "u6"],
        recipients=[{"id": "guest", "email": "g@example.org"}],
        topics=[{"key": "t1"}],
        segment={"age": {"lt": 7}},
        subscribers=True,
    )
    expected = {f"u{number}" for number in (*range(15), 20)} | {"guest", "quiet", "stranger"}
    assert await people_of(served, shown["id"]) == sorted(expected)
    counts = shown["counts"]
    assert (counts["matched"], counts["expected"], counts["missing"]) == (len(expected), len(expected), 0)
    assert counts["suppressed"] == {"inactive": 1, "unknown_user": 1}
    assert shown["audience"] == {
        "topics": [{"key": "t1", "roles": []}],
        "segment": {"age": {"lt": 7}},
        "subscribers": True,
        "everyone": False,
    }


async def test_roles_limit_a_send(served: Served) -> None:
    await family(served)
    shown = await reached(served, topics=[{"key": "family:17", "roles": ["head", "elder"]}])
    assert await people_of(served, shown["id"]) == ["asha"]


async def test_an_audience_of_nobody_is_complete_at_once(served: Served) -> None:
    shown = await reached(served, segment={"gotra": "Nobody"})
    assert (shown["status"], shown["counts"]["expected"], shown["counts"]["matched"]) == ("COMPLETED", 0, 0)


async def test_everyone_is_reached_page_by_page(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "PAGE", 150)
    await served.api.post("/api/users", json={"users": [{"id": f"u{number:04d}"} for number in range(1000)]})
    shown = await reached(served, everyone=True)
    assert len(await people_of(served, shown["id"])) == shown["counts"]["expected"] == 1000


async def test_who_joins_or_leaves_on_the_way_is_reached_once_or_not_at_all(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "PAGE", 100)
    for first in (0, 2400):
        users = [{"id": f"u{number:04d}"} for number in range(first, first + 2400, 2)]
        await served.api.post("/api/users", json={"users": users})
    posted = await served.posted(channels=["IN_APP"], everyone=True)
    await fan_out(served.store, posted["id"])
    for number in (1, 4799):
        await served.api.put(f"/api/users/u{number:04d}", json={})
    await served.api.delete("/api/users/u0000")
    await served.api.put("/api/users/u0000", json={})
    await served.api.delete("/api/users/u4798")
    await carry(served, posted["id"])
    reached_ones = await people_of(served, posted["id"])
    assert len(reached_ones) == len(set(reached_ones)) == 2400
    assert ("u4799" in reached_ones, "u0001" in reached_ones, "u4798" in reached_ones) == (True, False, False)


async def test_without_postgres_an_audience_waits(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    await family(served)
    served.store._intake.redis_is_durable = True

    async def away(*_: Any, **__: Any) -> Any:
        raise PostgresAway("it is away")

    with monkeypatch.context() as patch:
        patch.setattr(served.store.postgres, "call_within", away)
        posted = await served.posted(channels=["IN_APP"], topics=[{"key": "family:17"}])
        await fan_out(served.store, posted["id"])
    assert (posted["durability"], posted["recipientCount"]) == ("redis", None)
    assert await served.store._client.zscore("tocsin:due", f"e:{posted['id']}")
    await carry(served, posted["id"])
    assert await people_of(served, posted["id"]) == ["asha", "bina"]
    shown = (await served.api.get(f"/api/events/{posted['id']}")).json()
    assert (shown["status"], shown["counts"]["expected"]) == ("COMPLETED", 2)


async def test_members_are_counted_listed_and_replaced(served: Served) -> None:
    await family(served)
    url = "/api/topics/family:17/members"
    members = [{"userId": "asha", "roles": ["elder", "head", "head"]}, {"userId": "bina"}, {"userId": "chand"}]
    wrong = [{"userId": "no body"}, {"userId": "dev", "roles": ["a,b"]}]
    answer = (await served.api.post(url, json={"members": [*members, *wrong]})).json()
    counts = {"added": 1, "changed": 1, "unchanged": 1, "removed": 0, "unknown": 0}
    assert counts.items() <= answer.items()
    assert [(each["index"], each["field"], each["code"]) for each in answer["rejected"]] == [
        (3, "/userId", "bad_user_id"),
        (4, "/roles/0", "bad_role"),
    ]
    page = (await served.api.get(url, params={"limit": 2})).json()
    assert [each["userId"] for each in page["data"]] == ["asha", "bina"]
    rest = (await served.api.get(url, params={"limit": 2, "cursor": page["nextCursor"]})).json()
    assert (rest["data"], rest["nextCursor"]) == ([{"userId": "chand", "roles": [], "known": True}], None)
    heads = (await served.api.get(url, params={"role": "elder"})).json()["data"]
    assert [each["userId"] for each in heads] == ["asha"]
    problem_of(await served.api.post(url, json={"members": wrong, "replace": True}), 422, "bad_user_id")
    replaced = (await served.api.post(url, json={"members": members[:1], "replace": True})).json()
    assert (replaced["removed"], replaced["unchanged"]) == (2, 1)
    gone = await served.api.request("DELETE", url, json={"userIds": ["asha", "nobody", "no\0body"]})
    assert gone.json() == {"success": True, "removed": 1}
    assert (await served.api.get("/api/topics/family:17")).json()["members"] == 0
    assert (await served.api.delete("/api/topics/family:17")).status_code == 204
    problem_of(await served.api.get(url), 404, "not_found")
    problem_of(await served.api.post(url, json={"members": members}), 404, "not_found")


async def test_topics_are_listed_by_kind_and_page(served: Served) -> None:
    for number in range(5):
        await served.api.put(f"/api/topics/family:{number}", json={"kind": "family", "name": f"Family {number}"})
    await served.api.put("/api/topics/region:north", json={"kind": "region"})
    page = (await served.api.get("/api/topics", params={"kind": "family", "limit": 3})).json()
    assert [each["key"] for each in page["data"]] == ["family:0", "family:1", "family:2"]
    rest = (await served.api.get("/api/topics", params={"kind": "family", "cursor": page["nextCursor"]})).json()
    assert [each["key"] for each in rest["data"]] == ["family:3", "family:4"]


async def test_what_only_admins_decide_stays_as_they_said(
    settings: Callable[..., Settings], redis_url: str, postgres_url: str
) -> None:
    made = settings({**SETTINGS, "types.default.admin_only": True})
    async with serving(made, redis_url, postgres_url) as served:
        url = "/api/users/asha/subscriptions"
        await served.api.put(url, json={"types": [{"type": "system.alert"}]})
        asha = served.user("asha")
        for other in ({"type": "system.alert", "active": False}, {"type": "news"}):
            problem = problem_of(await asha.put(url, json={"types": [other]}), 403, "forbidden")
            assert problem["field"] == "/types/0/type"
        shown = (await asha.put(url, json={"types": []})).json()
        assert shown == {"types": [{"type": "system.alert", "active": True, "adminOnly": True}], "topics": []}
