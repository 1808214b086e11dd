"""What operators see: health, readiness, figures, correlation, description; what happens while a store is away."""

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
import redis
from loguru import logger
from prometheus_client import CollectorRegistry

from tests.served import ASHA, EVENT, SETTINGS, Served, problem_of, serving
from tocsin.actors import queues
from tocsin.actors.metrics import Gauges
from tocsin.domain.delivery import Channel
from tocsin.domain.errors import RedisAway
from tocsin.domain.settings import Settings
from tocsin.http.problems import KINDS

pytestmark = pytest.mark.servers

NOWHERE_REDIS = "unix:///nowhere/redis.sock"
NOWHERE_POSTGRES = "postgresql://nobody@/tocsin?host=/nowhere"


@pytest.fixture
async def served(settings: Callable[..., Settings], redis_url: str, postgres_url: str) -> AsyncIterator[Served]:
    async with serving(settings(SETTINGS), redis_url, postgres_url) as made:
        yield made


async def test_health_and_readiness_need_no_token(served: Served) -> None:
    client = served.client()
    await served.store.alive("tests", queues.ALL)
    assert (await client.get("/health")).json() == {"status": "OK"}
    ready = await client.get("/ready?probe=1")
    assert ready.status_code == 200
    assert ready.json() == {
        "status": "READY",
        "parts": {"redis": "ready", "postgres": "ready", "actors": "ready"},
        "channels": {
            "SMS": {"provider": "sandbox", "configured": True, "restingUntil": None, "rate": None},
            "EMAIL": {"provider": "smtp", "configured": False, "restingUntil": None, "rate": None},
        },
    }


async def test_a_queue_that_nobody_works_on_is_named(served: Served) -> None:
    await served.store.alive("tests", [queue for queue in queues.ALL if queue not in {"persist", "send_sms"}])
    ready = await served.client().get("/ready")
    assert ready.status_code == 200
    assert ready.json()["status"] == "DEGRADED"
    assert ready.json()["parts"]["actors"] == "no process works on persist, send_sms"


async def test_a_provider_that_rests_is_said_so_until_when(served: Served) -> None:
    await served.store._client.hset(served.store._keys.breakers, "SMS:sandbox", "open|5|1|1795000000000|0|0")
    channels = (await served.client().get("/ready")).json()["channels"]
    assert channels["SMS"]["restingUntil"] == "2026-11-18T11:06:40.000Z"
    assert channels["EMAIL"]["restingUntil"] is None
    registry = CollectorRegistry()
    await Gauges(registry, {Channel.SMS: "sandbox", Channel.EMAIL: "smtp"}).refresh(served.store)
    value = registry.get_sample_value
    assert value("tocsin_breaker_open", {"channel": "SMS", "provider": "sandbox"}) == 1
    assert value("tocsin_breaker_open", {"channel": "EMAIL", "provider": "smtp"}) == 0


async def test_every_answer_names_the_correlation_id_of_its_request(served: Served) -> None:
    answer = await served.client().get("/health", headers={"X-Request-ID": "order-17/a"})
    assert answer.headers["x-request-id"] == "order-17/a"
    for unfit in ("", "two words", "x" * 200, "a\tb"):
        made = (await served.client().get("/health", headers={"X-Request-ID": unfit})).headers["x-request-id"]
        assert re.fullmatch(r"[0-9a-f]{32}", made)
    body = await served.api.post(
        "/api/notifications", json={**EVENT, "recipients": [ASHA]}, headers={"X-Request-ID": "cid-17"}
    )
    event = (await served.api.get(f"/api/events/{body.json()['id']}")).json()
    assert event["correlationId"] == "cid-17"


async def test_metrics_count_requests_by_route_and_not_by_path(served: Served) -> None:
    await served.api.get("/api/users/asha")
    await served.api.get("/api/nothing")
    text = (await served.client().get("/metrics")).text
    assert 'tocsin_http_requests_total{method="GET",route="/api/users/{user}",status="404"} 1.0' in text
    assert 'route="unmatched",status="404"' in text
    assert "asha" not in text


async def test_metrics_may_need_a_key(settings: Callable[..., Settings], redis_url: str, postgres_url: str) -> None:
    async with serving(settings({**SETTINGS, "metrics.public": False}), redis_url, postgres_url) as served:
        problem_of(await served.client().get("/metrics"), 401, "token_missing")
        problem_of(await served.user("asha").get("/metrics"), 403, "forbidden")
        assert (await served.api.get("/metrics")).status_code == 200


async def test_a_path_or_method_that_is_not_there_is_a_problem_too(served: Served) -> None:
    problem_of(await served.api.get("/api/nothing"), 404, "no_such_path")
    problem_of(await served.api.get("/api/events/"), 404, "no_such_path")
    answer = await served.api.delete("/api/notifications")
    problem_of(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD, POST"


async def test_a_defect_is_answered_without_its_details(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError("the secret is a quince")

    monkeypatch.setattr(served.store, "caught_up", broken)
    said: list[str] = []
    handler = logger.add(said.append, format="{extra[cid]} {message}", backtrace=False, diagnose=False)
    answer = await served.api.get("/api/deliveries/0199a0c0-0000-8000-8000-000000000000")
    logger.remove(handler)
    body = problem_of(answer, 500, "internal")
    assert "quince" not in json.dumps(body)
    assert any(line.startswith(f"{body['correlationId']} GET /api/deliveries/{{delivery}} failed") for line in said)


async def test_a_slow_request_is_logged_with_its_route(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    from tocsin.http import correlation

    monkeypatch.setattr(correlation, "_SLOW_S", 0.0)
    said: list[str] = []
    handler = logger.add(said.append, format="{level} {extra[cid]} {message}")
    await served.api.get("/api/users/asha", headers={"X-Request-ID": "slow-1"})
    logger.remove(handler)
    (line,) = [line for line in said if line.startswith("WARNING slow-1 GET /api/users/{user} took ")]
    assert "asha" not in line


async def test_figures_of_storage_are_brought_up_to_date_before_they_are_shown(
    settings: Callable[..., Settings], redis_url: str, postgres_url: str
) -> None:
    looks: list[int] = []

    async def refresh() -> None:
        looks.append(1)
        raise RedisAway("away")

    async with serving(settings(SETTINGS), redis_url, postgres_url, refresh=refresh) as served:
        assert (await served.client().get("/metrics")).status_code == 200
    assert looks == [1]


async def test_the_page_of_the_api_needs_nothing_from_elsewhere(served: Served) -> None:
    page = await served.client().get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"(src|href)=\"(https?:)?//", page.text)
    assert "<script" not in page.text
    for kind in KINDS.values():
        assert f'id="{kind.code}"' in page.text


async def test_every_endpoint_and_every_problem_is_in_the_written_documentation(served: Served) -> None:
    from pathlib import Path

    written = (Path(__file__).parent.parent / "docs" / "api.md").read_text()
    described = (await served.client().get("/openapi.json")).json()
    for path, operations in described["paths"].items():
        for method in operations:
            assert f"{method.upper()} {path}" in written, f"docs/api.md lacks {method.upper()} {path}"
    for code in KINDS:
        assert f"`{code}`" in written, f"docs/api.md lacks the problem {code}"


async def test_the_description_is_openapi_3_1_and_names_every_answer(served: Served) -> None:
    described = (await served.client().get("/openapi.json")).json()
    assert described["openapi"] == "3.1.0"
    operations = [operation for each in described["paths"].values() for operation in each.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    post = described["paths"]["/api/notifications"]["post"]
    assert set(post["responses"]) == {"202", "400", "401", "403", "409", "413", "415", "422", "500", "503"}
    properties = described["components"]["schemas"]["PostNotification"]["properties"]
    assert (properties["message"]["maxLength"], properties["recipientIds"]["maxItems"]) == (10_000, 10_000)
    assert not _unresolved(described, described)


async def test_the_outbox_shows_what_the_sandbox_received(served: Served) -> None:
    outbox = served.context.outbox
    assert outbox is not None
    for number in range(3):
        outbox.add(Channel.EMAIL, "asha@example.org", subject=f"mail {number}", text="<b>hello</b>", notification="n1")
    outbox.add(Channel.SMS, "+14155550101", text="hello")
    page = (await served.api.get("/api/sandbox/outbox?limit=2&channel=EMAIL")).json()
    assert [entry["subject"] for entry in page["data"]] == ["mail 2", "mail 1"]
    assert (page["received"], page["data"][0]["provider"]) == (4, "sandbox")
    rest = (
        await served.api.get("/api/sandbox/outbox", params={"channel": "EMAIL", "cursor": page["nextCursor"]})
    ).json()
    assert [entry["subject"] for entry in rest["data"]] == ["mail 0"]
    problem_of(await served.user("asha").get("/api/sandbox/outbox"), 403, "forbidden")


@pytest.fixture
async def without_postgres(settings: Callable[..., Settings], redis_url: str) -> AsyncIterator[Served]:
    with redis.Redis.from_url(redis_url) as client:
        client.set("tocsin:epoch", "the-life-before")
    async with serving(settings(SETTINGS), redis_url, NOWHERE_POSTGRES) as made:
        yield made


@pytest.fixture
async def without_redis(settings: Callable[..., Settings], postgres_url: str) -> AsyncIterator[Served]:
    async with serving(settings(SETTINGS), NOWHERE_REDIS, postgres_url) as made:
        yield made


async def test_events_are_taken_while_postgres_is_away(without_postgres: Served) -> None:
    body = await without_postgres.posted(recipients=[ASHA], recipientIds=["whoever"])
    assert (body["durability"], body["recipientCount"]) == ("redis", 2)
    ready = await without_postgres.client().get("/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "DEGRADED")
    assert ready.json()["parts"]["redis"] == "ready"
    answer = await without_postgres.api.get("/api/events")
    problem_of(answer, 503, "postgres_away")
    assert int(answer.headers["retry-after"]) > 0


async def test_events_are_taken_while_redis_is_empty_and_postgres_is_away(
    settings: Callable[..., Settings], redis_url: str
) -> None:
    async with serving(settings(SETTINGS), redis_url, NOWHERE_POSTGRES) as served:
        assert (await served.posted(recipients=[ASHA]))["durability"] == "redis"
        ready = await served.client().get("/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "DEGRADED")
        assert "emptied" in ready.json()["parts"]["redis"]


async def test_a_key_that_redis_knows_is_taken_while_postgres_is_away(
    settings: Callable[..., Settings], redis_url: str, postgres_url: str
) -> None:
    async with serving(settings(SETTINGS), redis_url, postgres_url) as served:
        secret = await served.key("SENDER")
        assert (await served.client(secret).get("/api/events")).is_success
    async with serving(settings(SETTINGS), redis_url, NOWHERE_POSTGRES) as served:
        event = {**EVENT, "recipients": [ASHA]}
        assert (await served.client(secret).post("/api/notifications", json=event)).status_code == 202
        problem_of(await served.client("tk_never_seen").post("/api/notifications", json=event), 503, "postgres_away")


async def test_events_are_taken_while_redis_is_away_and_reads_are_not(without_redis: Served) -> None:
    served = without_redis
    answer = await served.api.post(
        "/api/notifications", json={**EVENT, "recipients": [ASHA]}, headers={"Idempotency-Key": "a"}
    )
    assert (answer.status_code, answer.json()["durability"]) == (202, "postgres")
    ready = await served.client().get("/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "DEGRADED")
    assert (await served.user("asha").get("/api/notifications")).json()["data"] == []
    read = await served.user("asha").post("/api/notifications/0199a0c0-0000-8000-8000-000000000000/read")
    problem_of(read, 503, "redis_away")
    problem_of(await served.user("asha").get("/api/stream"), 503, "redis_away")
    callback = await served.client().post("/callbacks/twilio", content=b"", headers=_signature("/callbacks/twilio"))
    problem_of(callback, 503, "redis_away")
    problem_of(await served.api.put("/api/users/asha/preferences", json={"sms": False}), 503, "redis_away")


async def test_nothing_is_taken_while_both_are_away(settings: Callable[..., Settings]) -> None:
    async with serving(settings(SETTINGS), NOWHERE_REDIS, NOWHERE_POSTGRES) as served:
        answer = await served.api.post("/api/notifications", json={**EVENT, "recipients": [ASHA]})
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        body = problem_of(await served.client().get("/ready"), 503, "not_ready")
        assert set(body["parts"]) == {"redis", "postgres"}
        assert "ready" not in body["parts"].values()
        assert "/nowhere" not in json.dumps(body)


def _signature(url: str) -> Mapping[str, str]:
    import base64
    import hashlib
    import hmac

    from tests.served import PUBLIC_URL, TWILIO_TOKEN

    digest = hmac.digest(TWILIO_TOKEN.encode(), (PUBLIC_URL + url).encode(), hashlib.sha1)
    return {"X-Twilio-Signature": base64.b64encode(digest).decode()}


def _unresolved(value: Any, document: dict[str, Any]) -> list[str]:
    if isinstance(value, list):
        return [found for item in value for found in _unresolved(item, document)]
    if not isinstance(value, dict):
        return []
    found = [each for item in value.values() for each in _unresolved(item, document)]
    if "$ref" in value and value["$ref"].rsplit("/", 1)[-1] not in document["components"]["schemas"]:
        found.append(value["$ref"])
    return found
