"""Who may do what, and what a stranger learns: nothing."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.served import ADMIN_KEY, ASHA, BINA, EVENT, SETTINGS, Served, notification_of, problem_of, serving, token_of
from tocsin.domain.settings import Settings

pytestmark = pytest.mark.servers


@pytest.fixture
async def served(settings: Callable[..., Settings], redis_url: str, postgres_url: str) -> AsyncIterator[Served]:
    async with serving(settings(SETTINGS), redis_url, postgres_url) as made:
        yield made


async def test_a_request_without_a_token_is_told_to_send_one(served: Served) -> None:
    answer = await served.client().get("/api/events")
    problem_of(answer, 401, "token_missing")
    assert answer.headers["www-authenticate"] == 'Bearer realm="tocsin"'
    problem_of(await served.client(Authorization="Bearer ").get("/api/events"), 401, "token_missing")


@pytest.mark.parametrize("header", [ADMIN_KEY, f"Basic {ADMIN_KEY}", f"Token {ADMIN_KEY}", f"Bearer{ADMIN_KEY}"])
async def test_a_token_without_bearer_is_told_to_write_it(served: Served, header: str) -> None:
    body = problem_of(await served.client(Authorization=header).get("/api/events"), 401, "bearer_missing")
    assert "Bearer " in body["mend"]
    assert ADMIN_KEY not in json.dumps(body)


@pytest.mark.parametrize("token", ["tk_nobody", "x", "a.b.c", "tk_" + "x" * 5_000, "ümlaut"])
async def test_a_token_that_nobody_gave_out_is_refused(served: Served, token: str) -> None:
    client = served.client()
    client.headers["Authorization"] = f"Bearer {token}".encode().decode("latin-1")
    problem_of(await client.get("/api/events"), 401, "token_invalid")


async def test_an_expired_token_is_told_so(served: Served) -> None:
    expired = served.client(token_of("asha", ends_in_s=-1))
    problem_of(await expired.get("/api/notifications"), 401, "token_expired")


async def test_a_token_that_was_good_is_refused_from_its_end_on(served: Served) -> None:
    asha = served.client(token_of("asha", ends_in_s=2))
    good = 0
    async with asyncio.timeout(10):
        while (answer := await asha.get("/api/notifications/unread-count")).is_success:
            good += 1
            await asyncio.sleep(0.02)
    problem_of(answer, 401, "token_expired")
    assert good


async def test_a_token_that_is_signed_otherwise_is_refused(served: Served) -> None:
    claims = {"sub": "asha", "exp": 4_000_000_000}
    unsigned = jwt.encode(claims, None, algorithm="none")
    other_secret = token_of("asha", secret="another-secret-another-secret-another-secret")
    other_hash = jwt.encode(claims, SETTINGS["auth.jwt_secret"] * 2, algorithm="HS512")
    without_end = jwt.encode({"sub": "asha"}, SETTINGS["auth.jwt_secret"], algorithm="HS256")
    nobody = token_of("with space")
    for token in (unsigned, other_secret, other_hash, without_end, nobody):
        problem_of(await served.client(token).get("/api/notifications"), 401, "token_invalid")


async def test_a_public_key_is_never_taken_for_a_secret(
    settings: Callable[..., Settings], redis_url: str, postgres_url: str
) -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    changes = {**SETTINGS, "auth.jwt_secret": "", "auth.jwt_public_key": public.decode()}
    async with serving(settings(changes), redis_url, postgres_url) as served:
        claims = {"sub": "asha", "exp": 4_000_000_000}
        signed = jwt.encode(claims, private, algorithm="RS256")
        assert (await served.client(signed).get("/api/notifications")).status_code == 200
        header, body = (
            base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
            for part in ({"alg": "HS256", "typ": "JWT"}, claims)
        )
        import hashlib
        import hmac

        signature = base64.urlsafe_b64encode(hmac.digest(public, header + b"." + body, hashlib.sha256)).rstrip(b"=")
        forged = b".".join([header, body, signature]).decode()
        problem_of(await served.client(forged).get("/api/notifications"), 401, "token_invalid")
        problem_of(await served.api.post("/api/users/asha/token"), 409, "tokens_not_configured")


async def test_audience_and_issuer_are_checked_when_they_are_set(
    settings: Callable[..., Settings], redis_url: str, postgres_url: str
) -> None:
    changes = {**SETTINGS, "auth.jwt_audience": "tocsin", "auth.jwt_issuer": "us"}
    async with serving(settings(changes), redis_url, postgres_url) as served:
        assert (await served.client(token_of("asha", aud="tocsin", iss="us")).get("/api/notifications")).is_success
        for claims in ({}, {"aud": "tocsin"}, {"aud": "other", "iss": "us"}, {"aud": "tocsin", "iss": "them"}):
            answer = await served.client(token_of("asha", **claims)).get("/api/notifications")
            problem_of(answer, 401, "token_invalid")
        minted = (await served.api.post("/api/users/asha/token")).json()["token"]
        assert (await served.client(minted).get("/api/notifications")).is_success


async def test_each_role_may_do_its_part_and_no_more(served: Served) -> None:
    sender, viewer = served.client(await served.key("SENDER")), served.client(await served.key("VIEWER"))
    user = served.user("asha")
    event = {**EVENT, "recipients": [ASHA]}
    assert (await sender.post("/api/notifications", json=event)).status_code == 202
    problem_of(await viewer.post("/api/notifications", json=event), 403, "forbidden")
    problem_of(await user.post("/api/notifications", json=event), 403, "forbidden")
    for client, status in ((sender, 200), (viewer, 200), (user, 403)):
        assert (await client.get("/api/events")).status_code == status
        assert (await client.get("/api/deliveries")).status_code == status
    for client in (sender, viewer, user):
        problem_of(await client.get("/api/keys"), 403, "forbidden")
    problem_of(await sender.post("/api/notifications/read-all"), 403, "user_token_needed")
    problem_of(await viewer.post("/api/users/asha/token"), 403, "forbidden")


async def test_a_user_reading_anothers_notification_gets_the_answer_of_a_missing_one(served: Served) -> None:
    note = notification_of(await served.routed(recipients=[ASHA, BINA]), "asha")
    bina, missing = served.user("bina"), "0199a0c0-0000-8000-8000-000000000000"
    for path in ("delivery-status", "journey"):
        theirs = await bina.get(f"/api/notifications/{note}/{path}")
        nowhere = await bina.get(f"/api/notifications/{missing}/{path}")
        bodies = [{**problem_of(answer, 404, "not_found"), "correlationId": ""} for answer in (theirs, nowhere)]
        assert bodies[0] == bodies[1]
    for identifier in (note, missing, "not-an-id"):
        problem_of(await bina.post(f"/api/notifications/{identifier}/read"), 404, "not_found")
    assert (await served.user("asha").get("/api/notifications/unread-count")).json() == {"unreadCount": 1}


async def test_a_user_sees_and_changes_only_their_own(served: Served) -> None:
    await served.api.put("/api/users/bina", json={"email": "bina@example.org"})
    asha = served.user("asha")
    assert (await asha.put("/api/users/asha", json={"email": "asha@example.org"})).status_code == 200
    for method, path in (
        ("GET", "/api/users/bina"),
        ("PUT", "/api/users/bina"),
        ("DELETE", "/api/users/bina"),
        ("GET", "/api/users/bina/preferences"),
        ("PUT", "/api/users/bina/preferences"),
        ("GET", "/api/users/bina/devices"),
    ):
        body = {"json": {}} if method == "PUT" else {}
        problem_of(await asha.request(method, path, **body), 404, "not_found")
    problem_of(await asha.get("/api/notifications?userId=bina"), 404, "not_found")
    problem_of(await asha.put("/api/users/asha", json={"active": True}), 403, "forbidden")
    problem_of(await served.api.get("/api/notifications"), 422, "missing_field")
    assert (await served.api.get("/api/notifications?userId=bina")).json() == {"data": [], "nextCursor": None}


async def test_a_key_is_made_listed_rotated_and_revoked(served: Served) -> None:
    made = await served.api.post("/api/keys", json={"name": "billing", "role": "SENDER"})
    assert made.status_code == 201
    first = made.json()
    assert first["secret"].startswith("tk_")
    problem_of(await served.api.post("/api/keys", json={"name": "billing", "role": "SENDER"}), 409, "conflict")
    listed = (await served.api.get("/api/keys")).json()["data"]
    assert [(key["name"], key["role"]) for key in listed] == [("billing", "SENDER")]
    assert first["secret"] not in json.dumps(listed)
    assert (await served.client(first["secret"]).get("/api/events")).is_success
    second = (await served.api.post(f"/api/keys/{first['id']}/rotate")).json()
    problem_of(await served.client(first["secret"]).get("/api/events"), 401, "token_invalid")
    assert (await served.client(second["secret"]).get("/api/events")).is_success
    assert (await served.api.delete(f"/api/keys/{second['id']}")).status_code == 204
    problem_of(await served.client(second["secret"]).get("/api/events"), 401, "token_invalid")
    problem_of(await served.api.post(f"/api/keys/{second['id']}/rotate"), 409, "conflict")
    problem_of(await served.api.delete("/api/keys/0199a0c0-0000-8000-8000-000000000000"), 404, "not_found")


async def test_a_key_that_is_made_twice_with_one_idempotency_key_is_one_and_kept_nowhere_in_clear(
    served: Served,
) -> None:
    headers, body = {"Idempotency-Key": "key-1"}, {"name": "billing", "role": "VIEWER"}
    first = await served.api.post("/api/keys", json=body, headers=headers)
    again = await served.api.post("/api/keys", json=body, headers=headers)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    kept = [await served.store._client.get(name) for name in await served.store._client.keys("*idempotency*")]
    assert kept
    assert first.json()["secret"] not in json.dumps(kept)
    assert len((await served.api.get("/api/keys")).json()["data"]) == 1


async def test_a_minted_token_is_its_users_and_ends(served: Served) -> None:
    answer = await served.api.post("/api/users/asha/token")
    assert answer.status_code == 201
    assert answer.json()["userId"] == "asha"
    own = served.client(answer.json()["token"])
    assert (await own.get("/api/notifications")).is_success
    problem_of(await own.get("/api/users/bina"), 404, "not_found")
    problem_of(await served.api.post("/api/users/with%20space/token"), 422, "bad_user_id")
