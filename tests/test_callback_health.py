"""How well receipts come: counted by day and provider, kept when the deliveries are gone; and who sent twice."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from tests.fakes.twilio import TwilioFake
from tests.served import SETTINGS, Served, notification_of, problem_of, serving
from tests.test_http_people import Twilio
from tocsin.actors.receipts import count_receipts
from tocsin.channels.contract import BuildContext, Sender
from tocsin.channels.twilio import PROVIDER
from tocsin.domain import ids
from tocsin.domain.delivery import Channel, Status
from tocsin.domain.settings import Settings
from tocsin.storage import look_ups
from tocsin.storage import receipts as stored_receipts
from tocsin.storage.look_ups import LookUp, Result
from tocsin.storage.settling import Telling

pytestmark = pytest.mark.servers

MINUTE_MS = 60_000


@pytest.fixture
async def served(settings: Callable[..., Settings], redis_url: str, postgres_url: str) -> AsyncIterator[Served]:
    async with serving(settings(SETTINGS), redis_url, postgres_url) as made:
        yield made


async def sent(served: Served, user: str, *, provider_id: str = "SM1") -> Any:
    """The notification of an SMS that the provider accepted."""
    people = [{"id": user, "phone": "+14155550101"}]
    note = notification_of(await served.routed(recipients=people, channels=["SMS"]), user)
    detail = {"provider": "sandbox", "provider_id": provider_id}
    await served.store.settle([Telling(note, 1, Channel.SMS, 1, Status.SENT, detail)])
    await served.stored()
    return note


async def backdate(served: Served, note: Any, ms: int) -> None:
    """Makes it have been sent so long ago."""
    statement = "update deliveries set sent_at = sent_at - %s * interval '1 ms' where notification_id = %s"
    await served.store.postgres.call(_execute, statement, ms, str(note))


async def days(served: Served, **query: str) -> list[dict[str, Any]]:
    answer = await served.api.get("/api/reconciliation/callbacks", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


async def test_receipts_are_counted_by_day_with_their_delay(served: Served) -> None:
    late_by_minutes = (0, 6, 11)
    for number, minutes in enumerate(late_by_minutes):
        note = await sent(served, f"u{number}", provider_id=f"SM{number}")
        assert (await Twilio(served, note, 1).tells("delivered", sid=f"SM{number}")).status_code == 204
        await served.stored()
        await backdate(served, note, minutes * MINUTE_MS)
    await backdate(served, await sent(served, "gone", provider_id="SM8"), 31 * MINUTE_MS)
    await sent(served, "young", provider_id="SM9")
    found = await days(served)
    assert sum(day["expected"] for day in found) == 5
    for name, count in (("received", 3), ("lateBy5Minutes", 2), ("lateBy10Minutes", 1), ("neverReceived", 1)):
        assert sum(day[name] for day in found) == count, name
    if len(found) == 1:  # as ever but within half an hour after midnight
        (day,) = found
        assert (day["provider"], day["share"], day["providerTotal"]) == ("sandbox", 0.6, None)
        assert abs(day["meanDelayMs"] - 17 * MINUTE_MS / 3) < MINUTE_MS


async def test_days_are_kept_when_their_deliveries_are_gone_beside_the_providers_own_total(
    served: Served, settings: Callable[..., Settings]
) -> None:
    fake = TwilioFake()
    await fake.start()
    table = settings({f"sms.twilio.{name}": value for name, value in fake.table().items()})
    context = BuildContext(True, "http://127.0.0.1:9", "Tocsin", None, {})
    sender: Sender = PROVIDER.build(table.provider_settings(PROVIDER.section, PROVIDER.settings), context)
    for number in range(2):
        fake.server.messages.add(f"SM{number}", {"To": "+14155550101", "From": "+15005550006", "Body": "x"})
    await sent(served, "u1")
    await count_receipts(served.store, {Channel.SMS: sender})
    await served.store.postgres.call(_execute, "delete from deliveries")
    await served.store.postgres.call(_execute, "update callback_health set day = day - 30")
    (day,) = await days(served, **{"from": str(datetime.now(UTC).date() - timedelta(days=40))})
    assert (day["expected"], day["received"], day["providerTotal"]) == (1, 0, 2)
    await sender.close()
    await fake.stop()


async def test_a_total_that_the_provider_told_stays_where_it_tells_none(served: Served) -> None:
    day = stored_receipts.ReceiptDay(date(2026, 11, 1), "twilio", 5, 4, 0, 0, 1, 100, 5)
    poorer = stored_receipts.ReceiptDay(date(2026, 11, 1), "twilio", 5, 5, 0, 0, 0, 200)
    for each in (day, poorer):
        await served.store.postgres.call(stored_receipts.keep, [each])
    (kept,) = await days(served, **{"from": "2026-11-01", "to": "2026-11-01"})
    assert (kept["received"], kept["providerTotal"], kept["meanDelayMs"]) == (5, 5, 40)


async def test_days_that_make_no_sense_are_refused(served: Served) -> None:
    path = "/api/reconciliation/callbacks"
    for query in ("from=2026-11-02&to=2026-11-01", "from=2020-01-01&to=2026-01-01"):
        problem_of(await served.api.get(f"{path}?{query}"), 422, "invalid_value")
    assert (await served.api.get(f"{path}?from=yesterday")).status_code == 422
    viewer = served.client(await served.key("VIEWER"))
    problem_of(await viewer.get(path), 403, "forbidden")


async def test_a_provider_that_made_two_messages_of_one_attempt_is_found_out(served: Served) -> None:
    twice = await sent(served, "u1", provider_id="SM1")
    for sid in ("SM1", "SM2", "SM2"):
        await Twilio(served, twice, 1).tells("delivered", sid=sid)
    half = await sent(served, "u2", provider_id="SM3")
    await Twilio(served, half, 1).tells("sent", sid="SM4")
    once = await sent(served, "u3", provider_id="SM5")
    for word in ("sent", "delivered"):
        await Twilio(served, once, 1).tells(word, sid="SM5")
    await served.stored()
    found = await served.store.postgres.call(stored_receipts.duplicates, 0)
    expected = {
        (ids.delivery_id(twice, 1, "SMS"), 1, ("SM1", "SM2")),
        (ids.delivery_id(half, 1, "SMS"), 1, ("SM3", "SM4")),
    }
    assert {(each.delivery, each.attempt, each.provider_ids) for each in found} == expected
    shown = (await served.api.get("/api/reconciliation/duplicates")).json()["data"]
    assert {tuple(each["providerIds"]) for each in shown} == {("SM1", "SM2"), ("SM3", "SM4")}
    later = await served.api.get("/api/reconciliation/duplicates?from=2255-01-01T00:00:00Z")
    assert later.json() == {"data": []}


async def test_answers_of_providers_are_listed_page_by_page(served: Served) -> None:
    note = await sent(served, "u1")
    delivery = ids.delivery_id(note, 1, "SMS")
    answers = [LookUp(delivery, attempt, Result.LOW, "twilio", confidence="low") for attempt in (1, 2, 3)]
    await served.store.postgres.call(look_ups.keep, [*answers, LookUp(delivery, 4, Result.FOUND, "twilio")])
    path = "/api/reconciliation/look-ups"
    first = (await served.api.get(path, params={"result": "LOW", "limit": 2})).json()
    assert [each["attempt"] for each in first["data"]] == [3, 2]
    rest = await served.api.get(path, params={"result": "LOW", "limit": 2, "cursor": first["nextCursor"]})
    assert [(each["attempt"], each["confidence"]) for each in rest.json()["data"]] == [(1, "low")]
    assert len((await served.api.get(path)).json()["data"]) == 4
    problem_of(await served.api.get(f"{path}?cursor=x"), 422, "bad_cursor")


def _execute(statement: str, *values: Any) -> None:
    from tocsin.storage.database import cursor

    with cursor() as query:
        query.execute(statement, values or None)
