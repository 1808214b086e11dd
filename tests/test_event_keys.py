"""One live event has a key: the same signature does nothing, another one replaces what has not gone out (E3)."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest

from tests.scenes import an_event, people
from tests.served import ASHA, EVENT, SETTINGS, Served, eventually, problem_of, serving, storing
from tests.stored import AT_MS, ask, entries, lent
from tocsin.actors import cancelling
from tocsin.domain import ids
from tocsin.domain.delivery import Channel, Reason, Status
from tocsin.domain.settings import Settings
from tocsin.storage import keyed as keyed_events
from tocsin.storage.accepted import Accepted
from tocsin.storage.event_keys import Outcome, holder_of, is_live, store_keyed
from tocsin.storage.flight_parts import Ending
from tocsin.storage.intake import fact_of
from tocsin.storage.persist import store

pytestmark = pytest.mark.servers

MAIL = {"recipients": [ASHA], "channels": ["EMAIL"], "notificationPriority": "HIGH", "key": "order:17"}


@pytest.fixture
async def served(settings: Callable[..., Settings], redis_url: str, postgres_url: str) -> AsyncIterator[Served]:
    async with serving(settings(SETTINGS), redis_url, postgres_url) as made, storing(made):
        yield made


async def standing(served: Served, event: str) -> dict[str, int]:
    await served.store.caught_up()
    found: dict[str, int] = (await served.api.get(f"/api/events/{event}")).json()["counts"]["deliveries"]
    return found


async def goes_out(served: Served) -> int:
    """Sends what may be sent by mail; answers how many those were."""
    attempts = served.store.attempts
    return len(await attempts.claim(Channel.EMAIL, "t", 9, lease_ms=30_000, attempts=3, resend=True))


async def test_the_same_said_again_does_nothing_while_it_has_not_gone_out(served: Served) -> None:
    first = await served.routed(**MAIL)
    await served.store.caught_up()
    again = await served.posted(**MAIL)
    assert (first["result"], again["result"], again["id"]) == ("ACCEPTED", "UNCHANGED", first["id"])
    assert again["notifications"] == first["notifications"]
    event = (await served.api.get(f"/api/events/{first['id']}")).json()
    assert (event["key"], bool(event["signature"])) == ("order:17", True)
    assert len((await served.api.get("/api/events")).json()["data"]) == 1


async def test_something_else_replaces_what_has_not_gone_out(served: Served) -> None:
    first = await served.routed(**MAIL, signature="v1")
    other = await served.routed(**MAIL | {"key": "order:18"})
    await served.store.caught_up()
    second = await served.routed(**MAIL, signature="v2")
    assert (second["result"], second["replacedId"]) == ("REPLACED", first["id"])
    assert await goes_out(served) == 2
    # What is still entered as waiting is ended by the job.
    await cancelling.go_on(served.store)
    assert await standing(served, first["id"]) == {"CANCELLED": 1}
    old = (await served.api.get(f"/api/events/{first['id']}")).json()
    assert (old["cancelReason"], old["cancelledBy"]) == ("replaced by another event with its key", "admin")
    assert (await standing(served, second["id"]), await standing(served, other["id"])) == ({"QUEUED": 1}, {"QUEUED": 1})


async def test_a_key_is_free_again_when_everything_has_gone_out_or_was_stopped(served: Served) -> None:
    first = await served.routed(**MAIL | {"channels": ["IN_APP"]})
    await served.store.caught_up()
    second = await served.routed(**MAIL | {"channels": ["IN_APP"]})
    assert (second["result"], second["id"] != first["id"]) == ("ACCEPTED", True)
    await served.store.caught_up()
    third = await served.routed(**MAIL)
    assert third["result"] == "ACCEPTED"
    stopped = (await served.api.post("/api/events/cancel", json={"key": "order:17"})).json()
    assert (stopped["ids"], stopped["cancelledCount"], stopped["status"]) == ([third["id"]], 1, "DONE")
    assert (await served.posted(**MAIL))["result"] == "ACCEPTED"
    problem_of(await served.api.post("/api/events/cancel", json={"key": "order:99"}), 404, "not_found")


async def test_the_events_of_a_key_are_listed_the_newest_first(served: Served) -> None:
    first, second = [await served.posted(**MAIL, signature=version) for version in ("v1", "v2")]
    await served.posted(**MAIL | {"key": "order:18"})
    page = (await served.api.get("/api/events", params={"key": "order:17", "limit": 1})).json()
    rest = (await served.api.get("/api/events", params={"key": "order:17", "cursor": page["nextCursor"]})).json()
    assert [[each["id"] for each in some["data"]] for some in (page, rest)] == [[second["id"]], [first["id"]]]
    assert (await served.api.get("/api/events", params={"key": "order:99"})).json() == {"data": [], "nextCursor": None}


async def test_a_signature_needs_a_key_and_a_repetition_is_answered_as_the_first_time(served: Served) -> None:
    bad = await served.api.post(
        "/api/notifications", json={"type": "a.b", "message": "x", "recipients": [ASHA], "signature": "v1"}
    )
    assert problem_of(bad, 422, "missing_field")["field"] == "/key"
    body = {"type": "a.b", "message": "x", **MAIL}
    answers = []
    for signature, idempotency in (("v1", "k1"), ("v2", "k2"), ("v1", "k1"), ("v2", "k2"), ("v2", "k3"), ("v2", "k3")):
        answer = await served.api.post(
            "/api/notifications", json=body | {"signature": signature}, headers={"Idempotency-Key": idempotency}
        )
        answers.append((answer.json()["result"], answer.json()["id"], answer.headers.get("Idempotency-Replayed")))
        # Postgres knows it too.
        for name in await served.store._client.keys("*:idempotency:*"):
            await served.store._client.delete(name)
    first, second = answers[0][1], answers[1][1]
    assert answers == [
        ("ACCEPTED", first, None),
        ("REPLACED", second, None),
        ("ACCEPTED", first, "true"),
        ("REPLACED", second, "true"),
        ("UNCHANGED", second, None),
        ("UNCHANGED", second, "true"),
    ]


async def test_of_many_at_once_one_is_live(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyed_events, "_TURN_S", 60.0)
    body = {"type": "a.b", "message": "x", **MAIL}
    said = [{**body, "signature": f"v{number % 3}"} for number in range(9)]
    alone = asyncio.gather(*(served.api.post("/api/notifications", json=each) for each in said))
    bulk = await served.api.post("/api/notifications/bulk", json={"notifications": said})
    results = [item["result"]["result"] for item in bulk.json()["results"] if item["success"]]
    assert len(results) == 9
    assert {answer.status_code for answer in await alone} == {202}
    await served.store.caught_up()
    rows = await served.store.postgres.call(ask, "select id from events where cancelled_at is null")
    holder = await served.store.postgres.call(holder_of, "order:17")
    assert holder is not None
    assert rows == [(holder.event,)]


async def test_events_of_one_bulk_request_with_one_key_are_taken_in_their_order(served: Served) -> None:
    said = [{"type": "a.b", "message": f"{number}", **MAIL} for number in range(5)]
    bulk = (await served.api.post("/api/notifications/bulk", json={"notifications": said})).json()
    results = [item["result"] for item in bulk["results"]]
    assert [each["result"] for each in results] == ["ACCEPTED", *["REPLACED"] * 4]
    assert [each["replacedId"] for each in results[1:]] == [each["id"] for each in results[:-1]]


async def test_with_postgres_away_redis_decides_and_what_it_cannot_know_is_not_guessed(
    served: Served, settings: Callable[..., Settings], redis_url: str
) -> None:
    first = await served.posted(**MAIL, signature="v1")
    routed = await served.routed(**MAIL | {"key": "order:19"})
    nowhere = "postgresql://tocsin@127.0.0.1:1/tocsin"
    async with serving(settings(SETTINGS), redis_url, nowhere) as alone:
        same = await alone.posted(**MAIL, signature="v1")
        assert (same["result"], same["id"], same["durability"]) == ("UNCHANGED", first["id"], "redis")
        second = await alone.posted(**MAIL, signature="v2")
        assert (second["result"], second["replacedId"]) == ("REPLACED", first["id"])
        assert (await alone.posted(**MAIL | {"key": "order:18"}))["result"] == "ACCEPTED"
        # Whether that one has gone out Redis does not know; that it is replaced needs no knowing.
        unknown = await alone.api.post("/api/notifications", json={**EVENT, **MAIL, "key": "order:19"})
        problem_of(unknown, 503, "postgres_away")
        assert (await alone.posted(**MAIL | {"key": "order:19", "signature": "v9"}))["replacedId"] == routed["id"]

    async def is_stored() -> bool:
        found = await served.store.postgres.call(holder_of, "order:17")
        return found is not None and str(found.event) == second["id"]

    await eventually(is_stored)
    assert (await served.api.get(f"/api/events/{first['id']}")).json()["cancelledAt"]


async def test_with_redis_away_nothing_is_replaced_that_could_start_all_the_same(
    served: Served, settings: Callable[..., Settings], postgres_url: str
) -> None:
    first = await served.routed(**MAIL, signature="v1")
    await served.store.caught_up()
    nowhere = "redis://127.0.0.1:1/0"
    async with serving(settings(SETTINGS), nowhere, postgres_url) as alone:
        same = await alone.posted(**MAIL, signature="v1")
        assert (same["result"], same["id"]) == ("UNCHANGED", first["id"])
        refused = await alone.api.post("/api/notifications", json={**EVENT, **MAIL, "signature": "v2"})
        problem_of(refused, 503, "redis_away")
        assert (await alone.posted(**MAIL | {"key": "order:18"}))["durability"] == "postgres"
    assert await standing(served, first["id"]) == {"QUEUED": 1}


async def test_what_was_taken_while_postgres_was_away_has_its_key_before_postgres_knows(
    settings: Callable[..., Settings], redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyed_events, "_JUST_NOW_S", 0.05)
    monkeypatch.setattr(keyed_events, "_BEHIND_S", 0.05)
    nowhere = "postgresql://tocsin@127.0.0.1:1/tocsin"
    async with serving(settings(SETTINGS), redis_url, postgres_url) as served:
        before = await served.posted(**MAIL, signature="v0")
        async with serving(settings(SETTINGS), redis_url, nowhere) as alone:
            first = await alone.posted(**MAIL, signature="v1")
        assert first["replacedId"] == before["id"]
        for signature in ("v1", "v2"):
            busy = await served.api.post("/api/notifications", json={**EVENT, **MAIL, "signature": signature})
            problem_of(busy, 409, "key_busy")
        # Whoever stops the one with this key means that one.
        holder = await served.store.keyed.holder_of("order:17")
        assert (str(holder.event) if holder else "") == first["id"]
        async with storing(served):
            await served.store.caught_up()
            second = await served.posted(**MAIL, signature="v2")
            assert (second["result"], second["replacedId"]) == ("REPLACED", first["id"])
            await served.store.caught_up()
            rows = await served.store.postgres.call(ask, "select id::text from events where cancelled_at is null")
            assert rows == [(second["id"],)]


async def test_what_has_gone_out_and_is_not_stored_yet_is_not_taken_for_live(
    settings: Callable[..., Settings], redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyed_events, "_JUST_NOW_S", 0.05)
    monkeypatch.setattr(keyed_events, "_BEHIND_S", 0.05)
    async with serving(settings(SETTINGS), redis_url, postgres_url) as served:
        first = await served.routed(**MAIL)
        claims = await served.store.attempts.claim(Channel.EMAIL, "t", 9, lease_ms=30_000, attempts=3, resend=True)
        await served.store.attempts.begin(claims, "t", lease_ms=30_000, detail={"provider": "smtp"})
        await served.store.attempts.record([Ending(claim, Status.SENT, {}) for claim in claims])
        problem_of(await served.api.post("/api/notifications", json={**EVENT, **MAIL}), 409, "key_busy")
        # Something else may be taken: that one is over in either case.
        assert (await served.posted(**MAIL, signature="v2"))["replacedId"] == first["id"]
        async with storing(served):
            await served.store.caught_up()
            assert (await served.posted(**MAIL, signature="v2"))["result"] == "UNCHANGED"


async def test_a_key_that_redis_lost_is_remembered_again(
    served: Served, settings: Callable[..., Settings], redis_url: str
) -> None:
    first = await served.routed(**MAIL, signature="v1")
    await served.store.caught_up()
    content = await served.store.flights.event(UUID(first["id"]))
    assert content is not None
    await served.store._client.delete(served.store._keys.event_key("order:17"))
    await served.store._client.delete(served.store._keys.event(first["id"]))
    await served.store.keyed.mirror()
    # As a rebuild leaves what of an event is in motion.
    await served.store.flights.keep_content([content])
    nowhere = "postgresql://tocsin@127.0.0.1:1/tocsin"
    async with serving(settings(SETTINGS), redis_url, nowhere) as alone:
        same = await alone.api.post("/api/notifications", json={**EVENT, **MAIL, "signature": "v1"})
        problem_of(same, 503, "postgres_away")
        problem_of(await alone.api.post("/api/events/cancel", json={"key": "order:99"}), 503, "postgres_away")
        assert (await alone.posted(**MAIL, signature="v2"))["replacedId"] == first["id"]


async def test_people_who_are_missing_keep_a_key_for_an_hour(served: Served) -> None:
    body = await served.routed(**MAIL | {"channels": ["IN_APP"]})
    await served.store.caught_up()
    event = UUID(body["id"])
    await served.store.postgres.call(ask, "update events set expected = 2 where id = %s", str(event))
    assert await served.store.postgres.call(is_live, event)
    later = "update events set completed_at = completed_at - interval '2 hours' where id = %s"
    await served.store.postgres.call(ask, later, str(event))
    assert not await served.store.postgres.call(is_live, event)


async def test_a_dead_letter_of_what_a_later_event_followed_stays_dead(served: Served) -> None:
    first = await served.routed(**MAIL, signature="v1")
    claims = await served.store.attempts.claim(Channel.EMAIL, "t", 9, lease_ms=30_000, attempts=3, resend=True)
    await served.store.attempts.begin(claims, "t", lease_ms=30_000, detail={"provider": "smtp"})
    dead = {"reason": Reason.TIMEOUT, "provider": "smtp"}
    await served.store.attempts.record([Ending(claim, Status.DEAD, dead) for claim in claims])
    await served.store.caught_up()
    letters = (await served.api.get("/api/dead-letters")).json()["data"]
    assert (await served.posted(**MAIL, signature="v2"))["result"] == "ACCEPTED"
    done = (await served.api.post("/api/dead-letters/retry", json={})).json()
    assert (done["replayed"], done["refused"]) == (0, {"replaced": 1})
    alone = await served.api.post(f"/api/deliveries/{letters[0]['id']}/retry")
    assert "later event" in problem_of(alone, 409, "conflict")["detail"]
    await served.store.postgres.call(ask, "update events set status = 'FAILED' where id = %s", first["id"])
    again = (await served.api.post("/api/dead-letters/retry", json={"ids": [first["id"]]})).json()
    assert again["refused"] == {"replaced": 1}


def test_two_commits_at_once_leave_one_live(postgres_url: str) -> None:
    start = threading.Barrier(4)

    def post(number: int) -> list[Outcome]:
        done = []
        with lent(postgres_url):
            start.wait(10)
            for turn in range(5):
                event = keyed(number * 100 + turn, f"v{turn % 2}")
                done.append(store_keyed(Accepted(event, people("u1")), AT_MS, may_replace=True))
        return done

    with ThreadPoolExecutor(4) as threads:
        outcomes = [outcome for done in threads.map(post, range(4)) for outcome in done]
    with lent(postgres_url):
        ((live,),) = ask("select id from events where cancelled_at is null")
        holder = holder_of("order:17")
        assert holder is not None
        assert (holder.event, is_live(live)) == (live, True)
        stored = ask("select count(*) from events")[0][0]
    assert stored == sum(outcome.unchanged is None for outcome in outcomes)
    assert stored == 1 + sum(outcome.replaced is not None for outcome in outcomes)


def test_of_events_that_only_the_journal_knew_the_latest_has_the_key(postgres_url: str) -> None:
    with lent(postgres_url):
        told = [fact_of(keyed(number, "v"), people("u1"), None) for number in (3, 1, 2)]
        store(entries(*told))
        store([("9-9", [fact]) for fact in told])
        holder = holder_of("order:17")
    assert holder is not None
    assert holder.event == keyed(3, "v").id


def keyed(number: int, signature: str) -> Any:
    identifier = ids.event_id(AT_MS + number, bytes(10))
    return an_event(id=identifier, event_key="order:17", signature=signature)
