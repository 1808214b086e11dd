"""People over HTTP: contacts, devices and what they switched off; and the callbacks of those who carry messages."""

import base64
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import httpx
import pytest

from tests.served import ASHA, PUBLIC_URL, SETTINGS, TWILIO_TOKEN, Served, notification_of, problem_of, serving
from tocsin.domain import ids
from tocsin.domain.settings import Settings

pytestmark = pytest.mark.servers


@pytest.fixture
async def served(settings: Callable[..., Settings], redis_url: str, postgres_url: str) -> AsyncIterator[Served]:
    async with serving(settings(SETTINGS), redis_url, postgres_url) as made:
        yield made


async def test_a_person_is_stored_shown_replaced_and_removed(served: Served) -> None:
    problem_of(await served.api.get("/api/users/asha"), 404, "not_found")
    details = {"email": "Asha@EXAMPLE.org", "phone": "+1 (415) 555-0101", "name": "Asha", "timezone": "Asia/Kolkata"}
    first = await served.api.put("/api/users/asha", json={**details, "locale": "en-IN"})
    assert first.status_code == 200
    stored = (await served.api.get("/api/users/asha")).json()
    assert stored == first.json()
    assert (stored["email"], stored["phone"], stored["active"]) == ("Asha@example.org", "+14155550101", True)
    second = (await served.api.put("/api/users/asha", json={"name": "Asha R", "active": False})).json()
    assert (second["email"], second["name"], second["active"]) == (None, "Asha R", False)
    assert second["version"] > stored["version"]
    assert [user["id"] for user in (await served.api.get("/api/users?limit=1")).json()["data"]] == ["asha"]
    assert (await served.api.delete("/api/users/asha")).status_code == 204
    problem_of(await served.api.delete("/api/users/asha"), 404, "not_found")


async def test_people_are_listed_page_by_page(served: Served) -> None:
    assert (await served.api.get("/api/users")).json() == {"data": [], "nextCursor": None}
    for name in ("a", "b", "c"):
        await served.api.put(f"/api/users/{name}", json={})
    first = (await served.api.get("/api/users?limit=2")).json()
    rest = (await served.api.get("/api/users", params={"limit": "2", "cursor": first["nextCursor"]})).json()
    assert [user["id"] for user in first["data"] + rest["data"]] == ["a", "b", "c"]
    assert rest["nextCursor"] is None


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"email": "nobody"}, "bad_email", "/email"),
        ({"phone": "9876543210"}, "bad_phone", "/phone"),
        ({"timezone": "Mars/Olympus"}, "bad_timezone", "/timezone"),
        ({"timezone": "../../etc/passwd"}, "bad_timezone", "/timezone"),
        ({"locale": "english please"}, "bad_format", "/locale"),
        ({"active": "yes"}, "wrong_type", "/active"),
        ({"name": "one\r\nBcc: two"}, "bad_format", "/name"),
        ({"id": "other"}, "unknown_field", "/id"),
    ],
)
async def test_each_bad_detail_is_named(served: Served, body: dict[str, Any], code: str, field: str) -> None:
    answer = await served.api.put("/api/users/asha", json=body)
    assert problem_of(answer, 422, code)["field"] == field
    for value in body.values():
        assert str(value) not in answer.json()["detail"]


async def test_a_device_is_added_listed_without_its_token_and_removed(served: Served) -> None:
    problem_of(await served.api.put("/api/users/asha/devices", json={"token": "token-of-asha"}), 404, "not_found")
    await served.api.put("/api/users/asha", json={})
    added = await served.api.put("/api/users/asha/devices", json={"token": "token-of-asha"})
    assert added.status_code == 200
    assert added.json().keys() == {"id", "kind", "addedAt"}
    again = await served.user("asha").post("/api/users/asha/devices", json={"token": "token-of-asha", "kind": "FCM"})
    assert again.json() == added.json()
    listed = await served.user("asha").get("/api/users/asha/devices")
    assert listed.json() == {"data": [added.json()]}
    assert (await served.api.get("/api/users/asha")).json()["devices"] == 1
    assert (await served.api.delete(f"/api/users/asha/devices/{added.json()['id']}")).status_code == 204
    problem_of(await served.api.delete(f"/api/users/asha/devices/{added.json()['id']}"), 404, "not_found")
    problem_of(await served.api.delete("/api/users/asha/devices/nothing"), 404, "not_found")


async def test_a_device_belongs_to_whoever_used_it_last(served: Served) -> None:
    for name in ("asha", "bina"):
        await served.api.put(f"/api/users/{name}", json={})
        await served.api.put(f"/api/users/{name}/devices", json={"token": "one-installation"})
    assert (await served.api.get("/api/users/asha/devices")).json() == {"data": []}
    _, contacts = await served.store.profiles.reached([(uuid4(), name) for name in ("asha", "bina")])
    assert (contacts["asha"].tokens, contacts["bina"].tokens) == ((), ("one-installation",))


async def test_what_a_person_switched_off_is_kept_by_channel_and_type(served: Served) -> None:
    everything = {"email": True, "push": True, "sms": True, "inApp": True}
    asha = served.user("asha")
    assert (await asha.get("/api/users/asha/preferences")).json() == {**everything, "types": {}}
    body = {"sms": False, "types": {"EVENT_APPROVAL": {"email": False}}}
    expected = {**everything, "sms": False, "types": {"event.approval": {**everything, "email": False}}}
    assert (await asha.put("/api/users/asha/preferences", json=body)).json() == expected
    assert (await served.api.get("/api/users/asha/preferences")).json() == expected
    note = notification_of(await served.routed(recipients=[ASHA], notificationPriority="CRITICAL"), "asha")
    shown = (await asha.get(f"/api/notifications/{note}/delivery-status")).json()["deliveries"]
    reasons = {each["channel"]: each["reason"] for each in shown if each["status"] == "SUPPRESSED"}
    assert (reasons["SMS"], reasons["EMAIL"]) == ("opted_out", "opted_out")
    assert (await asha.put("/api/users/asha/preferences", json={})).json() == {**everything, "types": {}}


async def test_a_preference_with_an_unknown_channel_is_refused(served: Served) -> None:
    answer = await served.api.put("/api/users/asha/preferences", json={"types": {"a.b": {"pigeon": False}}})
    assert problem_of(answer, 422, "unknown_field")["field"] == "/types/a.b/pigeon"


class Twilio:
    """Signs and sends callbacks as Twilio does."""

    def __init__(self, served: Served, note: Any, step: int, *, channel: str = "SMS") -> None:
        self._served = served
        self._query = urlencode(
            {"delivery": ids.delivery_id(note, step, channel), "notification": note, "step": step, "attempt": 1}
        )

    async def tells(self, status: str, *, token: str = TWILIO_TOKEN, sid: str = "SM1", **fields: Any) -> httpx.Response:
        form = [
            ("MessageSid", sid),
            ("MessageStatus", status),
            ("To", "+14155550101"),
            ("ErrorCode", ""),
            *fields.items(),
        ]
        url = f"/callbacks/twilio?{self._query}"
        signed = PUBLIC_URL + url + "".join(name + value for name, value in sorted(form))
        signature = base64.b64encode(hmac.digest(token.encode(), signed.encode(), hashlib.sha1)).decode()
        return await self._served.client().post(
            url,
            content=urlencode(form),
            headers={"X-Twilio-Signature": signature, "Content-Type": "application/x-www-form-urlencoded"},
        )


async def sms_of(served: Served, note: Any) -> dict[str, Any]:
    await served.stored()
    answer = (await served.api.get(f"/api/notifications/{note}/delivery-status")).json()
    (found,) = [each for each in answer["deliveries"] if each["channel"] == "SMS"]
    assert isinstance(found, dict)
    return found


async def test_a_signed_callback_settles_the_delivery_it_names_in_any_order_and_once(served: Served) -> None:
    note = notification_of(await served.routed(recipients=[ASHA], channels=["SMS"]), "asha")
    twilio = Twilio(served, note, 1)
    for word in ("delivered", "sent", "delivered", "queued"):
        answer = await twilio.tells(word)
        assert (answer.status_code, answer.content) == (204, b"")
    sms = await sms_of(served, note)
    assert (sms["status"], sms["providerId"], sms["provider"]) == ("DELIVERED", "SM1", "sandbox")
    told = (await served.api.get(f"/api/notifications/{note}/journey")).json()["journey"]
    assert sorted(step["providerStatus"] for step in told if step["providerStatus"]) == ["delivered", "queued", "sent"]
    kept = await served.store.postgres.call(_callbacks)
    assert kept == [("SM1:delivered", "+14155550101"), ("SM1:queued", "+14155550101"), ("SM1:sent", "+14155550101")]


async def test_a_callback_of_a_failure_names_its_cause(served: Served) -> None:
    note = notification_of(await served.routed(recipients=[ASHA], channels=["SMS"]), "asha")
    await Twilio(served, note, 1).tells("undelivered", Zzz="a", ErrorMessage="to +14155550101: Landline")
    sms = await sms_of(served, note)
    assert (sms["status"], sms["reason"]) == ("BOUNCED", "undelivered")
    assert "+14155550101" not in sms["error"]


async def test_a_callback_that_is_signed_wrongly_or_not_at_all_changes_nothing(served: Served) -> None:
    note = notification_of(await served.routed(recipients=[ASHA], channels=["SMS"]), "asha")
    before = await sms_of(served, note)
    problem_of(await Twilio(served, note, 1).tells("delivered", token="another"), 403, "bad_signature")
    problem_of(await served.client().post("/callbacks/twilio", content=b"MessageSid=SM1"), 403, "bad_signature")
    problem_of(await served.client().post("/callbacks/twilio", json={}), 403, "bad_signature")
    assert await sms_of(served, note) == before
    assert await served.store.postgres.call(_callbacks) == []


async def test_a_callback_of_a_delivery_that_is_not_ours_is_only_kept(served: Served) -> None:
    note = notification_of(await served.routed(recipients=[ASHA], channels=["SMS"]), "asha")
    assert (await Twilio(served, note, 1, channel="EMAIL").tells("delivered")).status_code == 204
    assert (await Twilio(served, note, 1).tells("invented")).status_code == 204
    assert (await sms_of(served, note))["status"] == "QUEUED"
    assert len(await served.store.postgres.call(_callbacks)) == 2


def _callbacks() -> list[tuple[str, str]]:
    from tocsin.storage.database import cursor

    with cursor() as query:
        query.execute("select id, raw->>'To' from callbacks order by id")
        return list(query.fetchall())
