"""Dead letters: found by cause, replayed with identity and history, refused where nobody wants them, put aside."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from itertools import permutations
from typing import Any
from uuid import UUID, uuid4

import pytest
from prometheus_client import CollectorRegistry

from tests.served import ASHA, BINA, SETTINGS, Served, notification_of, problem_of, serving
from tests.stored import AT_MS, ask, entries, lent, progress
from tocsin.actors.dead_letters import count_dead_letters
from tocsin.actors.fan_out import fan_out
from tocsin.actors.messages import messages_for
from tocsin.actors.metrics import Gauges
from tocsin.actors.route import route
from tocsin.domain.delivery import Channel, Reason, Status
from tocsin.domain.ids import delivery_id
from tocsin.domain.settings import Settings
from tocsin.storage import bad_facts, testimony
from tocsin.storage.by import By
from tocsin.storage.flight_parts import Claim, Ending, OpenFlight, OpenStep
from tocsin.storage.moments import ms_of
from tocsin.storage.persist import refuse, store

pytestmark = pytest.mark.servers

NOW = {"deliveryStrategy": "BROADCAST"}


@pytest.fixture
async def served(settings: Callable[..., Settings], redis_url: str, postgres_url: str) -> AsyncIterator[Served]:
    async with serving(settings(SETTINGS), redis_url, postgres_url) as made:
        yield made


async def begun(served: Served, channel: Channel) -> list[Claim]:
    """Claims what may start on a channel and begins it."""
    token = uuid4().hex
    attempts = served.store.attempts
    claims = await attempts.claim(channel, token, 100, lease_ms=60_000, attempts=3, resend=False)
    if claims:
        await attempts.begin(claims, token, lease_ms=60_000, detail={"provider": "sandbox", "attempts": 3})
    return claims


async def died(
    served: Served, channel: Channel, status: Status = Status.DEAD, detail: Mapping[str, Any] | None = None
) -> list[Claim]:
    """Ends what may start on a channel for good."""
    claims = await begun(served, channel)
    told = {"reason": Reason.PROVIDER_DOWN, "provider": "sandbox", "code": "503", "message": "try later"}
    await served.store.attempts.record([Ending(claim, status, dict(detail or told)) for claim in claims])
    await served.stored()
    return claims


async def dead(served: Served, *people: dict[str, Any], channel: str = "SMS", **given: Any) -> dict[str, Any]:
    """An event whose deliveries on a channel died."""
    body = await served.routed(recipients=list(people or (ASHA,)), channels=[channel], **NOW, **given)
    assert await died(served, Channel(channel))
    return body


async def listed(served: Served, **query: Any) -> list[dict[str, Any]]:
    answer = await served.api.get("/api/dead-letters", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


async def replayed(served: Served, **body: Any) -> dict[str, Any]:
    answer = await served.api.post("/api/dead-letters/retry", json=body)
    assert answer.status_code == 200, answer.text
    done: dict[str, Any] = answer.json()
    return done


async def journey(served: Served, note: str) -> list[tuple[str, int | None]]:
    """What is known of a notification's deliveries."""
    await served.stored()
    told = (await served.api.get(f"/api/notifications/{note}/journey")).json()
    return [(step["what"], step["attempt"]) for step in told["journey"] if step["deliveryId"]]


async def test_dead_letters_and_what_is_held_are_counted_for_everybody_who_looks(served: Served) -> None:
    registry = CollectorRegistry()
    gauges = Gauges(registry, {})

    async def shown() -> tuple[float | None, float | None]:
        await count_dead_letters(served.store)
        await gauges.refresh(served.store)
        value = registry.get_sample_value
        return value("tocsin_dead_letters"), value("tocsin_deliveries_held")

    await dead(served, ASHA, BINA)
    await served.routed(recipients=[ASHA], channels=["SMS"], **NOW)
    await died(served, Channel.SMS, Status.UNCERTAIN)
    assert await shown() == (2, 1)
    await dead(served)
    assert await shown() == (2, 1), "they are counted once in a while, by one of all processes"
    await served.store._client.delete(served.store._keys.once("dead_letters"))
    assert await shown() == (3, 1)


async def test_what_died_is_listed_and_what_was_not_to_be_sent_is_not(served: Served) -> None:
    body = await served.routed(recipients=[ASHA, {"id": "none", "name": "None"}], channels=["SMS", "EMAIL"], **NOW)
    await died(served, Channel.SMS)
    await served.api.post(f"/api/events/{body['id']}/cancel")
    (letter,) = await listed(served)
    assert (letter["kind"], letter["eventId"], letter["recipientId"]) == ("DELIVERY", body["id"], "asha")
    assert (letter["status"], letter["reason"], letter["errorCode"]) == ("DEAD", "provider_down", "503")
    assert (letter["error"], letter["provider"], letter["discardedAt"]) == ("try later", "sandbox", None)
    assert letter["failedAt"]


async def test_dead_letters_are_found_by_whatever_is_known_of_them(served: Served) -> None:
    one = await dead(served, ASHA)
    await dead(served, BINA, channel="EMAIL", type="event.other")
    for query in (
        {"eventId": one["id"]},
        {"type": "event.approval"},
        {"userId": "asha"},
        {"channel": "SMS"},
        {"channel": "SMS", "status": "DEAD", "reason": "provider_down", "code": "503", "provider": "sandbox"},
    ):
        assert [letter["eventId"] for letter in await listed(served, **query)] == [one["id"]], query
    for nothing in ({"kind": "EVENT"}, {"status": "FAILED"}, {"code": "1"}, {"to": "2020-01-01T00:00:00Z"}):
        assert await listed(served, **nothing) == []
    first = (await served.api.get("/api/dead-letters?limit=1")).json()
    rest = await listed(served, limit=1, cursor=first["nextCursor"])
    assert {letter["recipientId"] for letter in first["data"] + rest} == {"asha", "bina"}


async def test_they_are_grouped_by_cause_and_the_held_are_counted(served: Served) -> None:
    await dead(served, ASHA, BINA)
    await served.routed(recipients=[ASHA], channels=["EMAIL"], **NOW)
    await died(served, Channel.EMAIL, Status.FAILED, {"reason": Reason.REJECTED, "code": "550"})
    await served.routed(recipients=[BINA], channels=["SMS"], **NOW)
    await died(served, Channel.SMS, Status.UNCERTAIN, {"reason": Reason.TIMEOUT})
    (letter,) = await listed(served, userId="bina")
    await served.api.post("/api/dead-letters/discard", json={"ids": [letter["id"]], "reason": "known"})
    told = (await served.api.get("/api/dead-letters/causes")).json()
    assert (told["total"], told["discarded"], told["held"]) == (2, 1, 1)
    causes = {cause["channel"]: cause for cause in told["data"]}
    assert {name: (cause["count"], cause["discarded"]) for name, cause in causes.items()} == {
        "SMS": (1, 1),
        "EMAIL": (1, 0),
    }
    assert (causes["SMS"]["reason"], causes["SMS"]["sample"], causes["EMAIL"]["errorCode"]) == (
        "provider_down",
        "try later",
        "550",
    )
    assert causes["SMS"]["firstAt"] <= causes["SMS"]["lastAt"]


async def test_a_replay_keeps_identity_and_history_and_gives_as_many_attempts_again(served: Served) -> None:
    body = await dead(served)
    note = notification_of(body, "asha")
    (letter,) = await listed(served)
    answer = (await served.api.post(f"/api/deliveries/{letter['id']}/retry")).json()
    assert answer["waitingForRedis"] is False
    assert (answer["delivery"]["id"], answer["delivery"]["status"]) == (letter["id"], "RETRYING")
    assert (answer["delivery"]["reason"], answer["delivery"]["attemptCount"]) == ("replayed", 1)
    assert await listed(served) == []
    (claim,) = await begun(served, Channel.SMS)
    assert (claim.notification, claim.step, claim.attempt) == (note, 1, 2)
    await served.store.attempts.record([Ending(claim, Status.SENT, {"provider": "sandbox"})])
    assert await journey(served, str(note)) == [
        ("QUEUED", 1), ("SENDING", 1), ("DEAD", 1), ("RETRYING", 2), ("SENDING", 2), ("SENT", 2),
    ]  # fmt: skip


async def test_two_replays_at_once_replay_once(served: Served) -> None:
    await dead(served)
    (letter,) = await listed(served)
    path = f"/api/deliveries/{letter['id']}/retry"
    answers = await asyncio.gather(*(served.api.post(path) for _ in range(4)), replayed(served))
    assert sorted(answer.status_code for answer in answers[:4])[-3:] == [409, 409, 409]
    assert sum(answer.status_code == 200 for answer in answers[:4]) + answers[4]["replayed"] == 1
    assert [claim.attempt for claim in await begun(served, Channel.SMS)] == [2]


async def test_what_is_no_dead_letter_is_not_replayed(served: Served) -> None:
    body = await served.routed(recipients=[ASHA], channels=["SMS"], **NOW)
    status = await served.api.get(f"/api/notifications/{notification_of(body, 'asha')}/delivery-status")
    delivery = status.json()["deliveries"][0]["id"]
    problem_of(await served.api.post(f"/api/deliveries/{delivery}/retry"), 409, "conflict")
    unknown = "01a1fe05-4875-8976-8498-396c693ded98"
    problem_of(await served.api.post(f"/api/deliveries/{unknown}/retry"), 404, "not_found")
    assert (await replayed(served, ids=[delivery, unknown]))["skipped"] == 2


async def test_a_filter_replays_page_by_page_and_leaves_the_rest(served: Served) -> None:
    people = [{"id": f"u{number}", "phone": "+14155550101"} for number in range(5)]
    await dead(served, *people)
    await dead(served, BINA, channel="EMAIL")
    first = await replayed(served, filter={"channel": "SMS"}, limit=3)
    assert (first["replayed"], first["remaining"]) == (3, 2)
    second = await replayed(served, filter={"channel": "SMS"}, limit=3, cursor=first["nextCursor"])
    assert (second["replayed"], second["remaining"], second["nextCursor"]) == (2, 0, None)
    assert [letter["channel"] for letter in await listed(served)] == ["EMAIL"]
    assert len(await begun(served, Channel.SMS)) == 5


async def test_a_repeated_request_is_answered_as_the_first_time(served: Served) -> None:
    await dead(served)
    key = {"Idempotency-Key": "once"}
    answers = [await served.api.post("/api/dead-letters/retry", json={}, headers=key) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert answers[1].headers["Idempotency-Replayed"] == "true"


async def test_what_nobody_wants_any_more_is_refused_with_its_reason(served: Served) -> None:
    people = [{"id": name, "phone": "+14155550101"} for name in ("reads", "leaves", "rests", "waits")]
    for person in people:
        await served.api.put(f"/api/users/{person['id']}", json={"phone": person["phone"]})
    body = await dead(served, *people)
    withdrawn = await dead(served, {"id": "other", "phone": "+14155550109"})
    await served.user("reads").post(f"/api/notifications/{notification_of(body, 'reads')}/read")
    off = await served.api.put("/api/users/leaves/preferences", json={"sms": False})
    assert off.status_code == 200, off.text
    await served.api.put("/api/users/rests", json={"phone": "+14155550101", "active": False})
    await served.api.post(f"/api/events/{withdrawn['id']}/cancel")
    await served.stored()
    done = await replayed(served)
    assert done["refused"] == {"read": 1, "opted_out": 1, "inactive": 1, "cancelled": 1}
    assert [claim.user for claim in await begun(served, Channel.SMS)] == ["waits"]
    letter = next(letter for letter in await listed(served) if letter["recipientId"] == "reads")
    told = problem_of(await served.api.post(f"/api/deliveries/{letter['id']}/retry"), 409, "conflict")
    assert "it was read" in told["detail"]


async def test_a_read_that_only_redis_knows_cancels_a_replay(served: Served) -> None:
    body = await dead(served)
    note = notification_of(body, "asha")
    await served.store.flights.read("asha", [(note, True)])
    assert (await replayed(served))["refused"] == {"cancelled": 1}
    assert await begun(served, Channel.SMS) == []
    assert (await journey(served, str(note)))[-1] == ("CANCELLED", 2)


async def test_an_inline_address_is_found_when_redis_has_forgotten_the_event(served: Served, redis_url: str) -> None:
    await dead(served, {"id": "once", "phone": "+14155550177", "name": "Once"}, {"id": "two", "phone": "+14155550178"})
    client = served.store._client
    for pattern in ("*:event:*", "*:contacts:*", "*:profile:*"):
        for name in await client.keys(pattern):
            await client.delete(name)
    assert (await replayed(served))["replayed"] == 2
    claims = await begun(served, Channel.SMS)
    messages = await messages_for(served.store, claims)
    found = {claim.user: message and (message.address, message.name) for claim, message in messages.items()}
    assert found == {"once": ("+14155550177", "Once"), "two": ("+14155550178", None)}


async def test_a_mandatory_event_stays_mandatory_when_redis_has_forgotten_it(served: Served, postgres_url: str) -> None:
    body = await dead(served)
    with lent(postgres_url):
        ask("update events set mandatory = true where id = %s", body["id"])
    await served.api.put("/api/users/asha", json={"phone": "+14155550101"})
    await served.api.put("/api/users/asha/preferences", json={"sms": False})
    client = served.store._client
    await client.delete(f"tocsin:event:{body['id']}")
    assert (await replayed(served))["replayed"] == 1
    assert len(await begun(served, Channel.SMS)) == 1


async def test_what_was_discarded_is_left_out_and_a_replay_takes_it_back(served: Served, postgres_url: str) -> None:
    await dead(served, ASHA, BINA)
    letter, other = await listed(served)
    path = "/api/dead-letters/discard"
    answer = await served.api.post(path, json={"ids": [letter["id"]], "reason": "wrong number"})
    assert (answer.json()["discarded"], answer.json()["remaining"]) == (1, 0)
    assert (await served.api.post(path, json={"ids": [letter["id"]], "reason": "again"})).json()["discarded"] == 0
    assert [each["id"] for each in await listed(served)] == [other["id"]]
    (gone,) = await listed(served, discarded="YES")
    assert (gone["id"], gone["discardReason"], gone["discardedBy"]) == (letter["id"], "wrong number", "admin")
    assert len(await listed(served, discarded="ALL")) == 2
    assert (await replayed(served))["replayed"] == 1
    assert (await replayed(served, ids=[letter["id"]]))["replayed"] == 1
    assert await listed(served, discarded="ALL") == []
    with lent(postgres_url):
        assert ask("select count(*) from discards") == [(0,)]
        told = ask("select action, actor, detail ->> 'reason' from audit_log where action like 'dead%%' order by id")
    assert told == [
        ("dead_letters.discarded", "admin", "wrong number"),
        ("dead_letters.replayed", "admin", None),
        ("dead_letters.replayed", "admin", None),
    ]


async def test_only_admins_replay_many_and_viewers_look(served: Served) -> None:
    await dead(served)
    (letter,) = await listed(served)
    sender, viewer = served.client(await served.key("SENDER")), served.client(await served.key("VIEWER"))
    assert (await viewer.get("/api/dead-letters/causes")).json()["total"] == 1
    for path, body in (("retry", {}), ("discard", {"reason": "x"})):
        problem_of(await sender.post(f"/api/dead-letters/{path}", json=body), 403, "forbidden")
    problem_of(await viewer.post(f"/api/deliveries/{letter['id']}/retry"), 403, "forbidden")
    assert (await sender.post(f"/api/deliveries/{letter['id']}/retry")).status_code == 200


async def test_with_redis_away_a_replay_is_stored_and_waits_for_it(
    served: Served, settings: Callable[..., Settings], postgres_url: str
) -> None:
    await dead(served)
    (letter,) = await listed(served)
    away = settings({**SETTINGS, "redis.url": "redis://127.0.0.1:1"})
    async with serving(away, "redis://127.0.0.1:1", postgres_url) as alone:
        path, key = f"/api/deliveries/{letter['id']}/retry", {"Idempotency-Key": "once"}
        answer = await alone.api.post(path, headers=key)
        assert answer.status_code == 200, answer.text
        assert (answer.json()["waitingForRedis"], answer.json()["delivery"]["status"]) == (True, "RETRYING")
        assert (await replayed(alone))["replayed"] == 0
    assert await begun(served, Channel.SMS) == []


async def test_whoever_was_held_up_too_long_does_not_touch_redis(served: Served) -> None:
    """A process that was frozen between its lock and this must not start what another has replayed and sent."""
    body = await dead(served)
    note = notification_of(body, "asha")
    step = OpenStep(1, Channel.SMS, Status.RETRYING, 2, 1)
    flights = [OpenFlight(note, "asha", UUID(body["id"]), False, 0, [step])]
    assert await served.store.flights.restore(flights, until_ms=1) == ["late"]
    assert await begun(served, Channel.SMS) == []


async def test_a_replay_that_dies_again_is_a_dead_letter_again_with_more_attempts(served: Served) -> None:
    await dead(served)
    (letter,) = await listed(served)
    await served.api.post("/api/dead-letters/discard", json={"ids": [letter["id"]], "reason": "for now"})
    answer = await served.api.post(f"/api/deliveries/{letter['id']}/retry")
    assert answer.json()["delivery"]["maxAttempts"] == 3
    await died(served, Channel.SMS)
    (again,) = await listed(served)
    assert (again["id"], again["attemptCount"], again["discardedAt"]) == (letter["id"], 2, None)


async def test_many_are_replayed_in_one_call(served: Served) -> None:
    await dead(served, *({"id": f"u{number}", "phone": "+14155550101"} for number in range(250)))
    while await died(served, Channel.SMS):
        pass
    assert (await served.api.get("/api/dead-letters/causes")).json()["data"][0]["count"] == 250
    done = await replayed(served)
    assert (done["replayed"], done["remaining"], done["nextCursor"]) == (250, 0, None)


async def gave_up(served: Served, entry: str, event: str) -> None:
    """Lets the work of an event or a chunk raise until it is given up."""
    for _ in range(5):
        await served.store.flights.back_off(entry, UUID(event), error="ValueError")
    await served.stored()


async def event_of(served: Served, event: str) -> dict[str, Any]:
    await served.stored()
    told: dict[str, Any] = (await served.api.get(f"/api/events/{event}")).json()
    return told


async def goes_on(served: Served, event: str, *chunks: int) -> None:
    await fan_out(served.store, event)
    for chunk in chunks:
        await route(served.store, event, chunk)
    await served.stored()


@pytest.mark.parametrize("forgotten", [False, True])
async def test_a_chunk_that_was_given_up_is_routed_by_a_replay_and_nobody_else_again(
    served: Served, *, forgotten: bool
) -> None:
    people = [{"id": f"u{number:03}", "phone": "+14155550101"} for number in range(150)]
    body = await served.posted(recipients=people, channels=["SMS"], **NOW)
    event = body["id"]
    await fan_out(served.store, event)
    await route(served.store, event, 0)
    await gave_up(served, f"c:{event}:1", event)
    (letter,) = await listed(served)
    assert (letter["kind"], letter["id"], letter["error"], letter["status"]) == ("EVENT", event, "ValueError", "FAILED")
    if forgotten:
        client = served.store._client
        for name in await client.keys(f"tocsin:*{event}*"):
            if "flight" not in name:
                await client.delete(name)
    done = await replayed(served, ids=[event])
    assert (done["replayed"], done["busy"]) == (1, 0)
    assert (await event_of(served, event))["status"] == "PROCESSING"
    assert await listed(served) == []
    await goes_on(served, event, *range(4))
    told = await event_of(served, event)
    assert (told["status"], told["error"], told["counts"]["notifications"]) == ("COMPLETED", None, 150)
    first, second = await begun(served, Channel.SMS), await begun(served, Channel.SMS)
    users = [claim.user for claim in first + second]
    assert sorted(users) == [person["id"] for person in people]
    assert {claim.attempt for claim in first + second} == {1}


async def test_a_fan_out_that_was_given_up_begins_again(served: Served) -> None:
    body = await served.posted(recipients=[ASHA, BINA], channels=["SMS"], **NOW)
    await gave_up(served, f"e:{body['id']}", body["id"])
    assert [letter["kind"] for letter in await listed(served)] == ["EVENT"]
    answers = await asyncio.gather(*(replayed(served) for _ in range(3)))
    assert sum(answer["replayed"] for answer in answers) == 1
    await goes_on(served, body["id"], 0)
    assert (await event_of(served, body["id"]))["status"] == "COMPLETED"
    await gave_up(served, f"e:{body['id']}", body["id"])
    assert await listed(served) == []


async def test_what_is_known_of_people_who_are_not_stored_as_routed_is_not_done_again(served: Served) -> None:
    """As after a loss of Redis, of which a process told what it had sent, and nobody whom it was for."""
    body = await served.posted(recipients=[ASHA, BINA], channels=["SMS"], **NOW)
    await gave_up(served, f"e:{body['id']}", body["id"])
    sent = testimony.ended((notification_of(body, "asha"), 1, "SMS", 1), Status.SENT, {"provider": "twilio"}, AT_MS)
    await served.store.facts.append([sent])
    await served.stored()
    assert (await replayed(served))["replayed"] == 1
    await goes_on(served, body["id"], 0)
    assert [claim.user for claim in await begun(served, Channel.SMS)] == ["bina"]
    counts = (await event_of(served, body["id"]))["counts"]
    assert (counts["notifications"], counts["sent"]) == (2, 1)


async def test_what_is_no_dead_letter_is_skipped_also_while_postgres_has_refused_something(served: Served) -> None:
    body = await served.routed(recipients=[ASHA], channels=["SMS"], **NOW)
    waiting = str(delivery_id(notification_of(body, "asha"), 1, "SMS"))
    await served.store.postgres.call(refuse, "1-0", [{"f": "strange"}], "nobody knows it")
    assert (await served.api.post(f"/api/deliveries/{waiting}/retry")).status_code == 409


async def test_what_postgres_refused_to_store_something_of_is_replayed_once_that_is_settled(served: Served) -> None:
    body = await served.posted(recipients=[ASHA, BINA], channels=["SMS"], **NOW)
    await gave_up(served, f"e:{body['id']}", body["id"])
    names = body["id"], str(notification_of(await dead(served), "asha"))
    for place, name in enumerate(names):
        await served.store.postgres.call(refuse, f"1-{place}", [{"f": "strange", "n": name}], "nobody knows it")
    done = await replayed(served)
    assert (done["replayed"], done["busy"]) == (0, 2)
    assert await served.store.postgres.call(bad_facts.forget, ["1-0", "1-1"], By("admin", "c1")) == 0
    assert (await replayed(served))["replayed"] == 2


async def test_an_event_of_which_something_is_in_motion_is_replayed_later(served: Served) -> None:
    people = [{"id": f"u{number:03}", "phone": "+14155550101"} for number in range(250)]
    body = await served.posted(recipients=people, channels=["SMS"], **NOW)
    await fan_out(served.store, body["id"])
    await gave_up(served, f"c:{body['id']}:1", body["id"])
    assert (await replayed(served))["busy"] == 1
    await route(served.store, body["id"], 2)
    await served.stored()
    assert (await replayed(served))["replayed"] == 1


async def test_an_event_given_up_twice_is_a_dead_letter_twice(served: Served) -> None:
    body = await served.posted(recipients=[ASHA], channels=["SMS"], **NOW)
    for _ in range(2):
        await gave_up(served, f"e:{body['id']}", body["id"])
        assert len(await listed(served)) == 1
        assert (await replayed(served))["replayed"] == 1


async def test_without_redis_an_event_is_not_replayed(
    served: Served, settings: Callable[..., Settings], postgres_url: str
) -> None:
    body = await served.posted(recipients=[ASHA], channels=["SMS"], **NOW)
    await gave_up(served, f"e:{body['id']}", body["id"])
    async with serving(settings(SETTINGS), "redis://127.0.0.1:1", postgres_url) as alone:
        problem_of(await alone.api.post("/api/dead-letters/retry", json={}), 503, "redis_away")
    assert len(await listed(served)) == 1


def test_facts_of_an_events_generations_end_right_in_any_order(postgres_url: str) -> None:
    facts = [
        progress("PROCESSING"),
        progress("FAILED", at_ms=AT_MS + 1, error="ValueError"),
        progress("PROCESSING", at_ms=AT_MS + 2) | {"generation": 1},
        progress("COMPLETED", at_ms=AT_MS + 3, expected=7) | {"generation": 1},
    ]
    seen = set()
    with lent(postgres_url):
        for order in permutations(facts):
            for cut in range(len(facts)):
                ask("delete from events")
                store(entries(*order[:cut]))
                store(entries(*order[cut:]))
                seen.update(ask("select generation, status, error, expected, completed_at from events"))
    ((generation, status, error, expected, completed_at),) = seen
    assert (generation, status, error, expected, ms_of(completed_at)) == (1, "COMPLETED", None, 7, AT_MS + 3)
