"""Reconciliation with the providers: what they have twice, what they never told of, and who hears of it."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.fakes.twilio import TwilioFake
from tests.stored import ask
from tests.test_reconcile import FIFTY, SOON, Scene, an_event, opened
from tocsin.actors.messages import messages_for
from tocsin.channels.contract import BuildContext, Sender
from tocsin.channels.twilio import PROVIDER
from tocsin.domain import ids
from tocsin.domain.delivery import Channel, Status
from tocsin.domain.settings import Settings
from tocsin.storage.flight_parts import Claim, Ending

pytestmark = pytest.mark.servers

DAY_MS = 86_400_000


@pytest.fixture
async def twilio() -> AsyncIterator[TwilioFake]:
    fake = TwilioFake()
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def scene(
    settings: Callable[..., Settings], redis_url: str, postgres_url: str, twilio: TwilioFake
) -> AsyncIterator[Scene]:
    account = {
        "sms.twilio.account_sid": "AC" + "0" * 32,
        "sms.twilio.auth_token": "secret",
        "sms.twilio.from_number": "+15005550006",
    }
    at_once = {"uncertain.first_after": "1ms", "uncertain.receipt_after": "1ms"}
    given = {**account, **{f"sms.twilio.{name}": value for name, value in twilio.table().items()}, **at_once}
    async with opened(settings(given), redis_url, postgres_url) as made:
        yield made


@pytest.fixture
async def sender(scene: Scene) -> AsyncIterator[Sender]:
    table = scene.store.settings.provider_settings(PROVIDER.section, PROVIDER.settings)
    made = PROVIDER.build(table, BuildContext(False, "http://127.0.0.1:9", "Tocsin", None, {}))
    yield made
    await made.close()


async def sent(scene: Scene, provider_id: Callable[[Claim], Any], *, events: int = 1) -> list[Claim]:
    """Fifty SMS, of so many events, that a provider took under these ids."""
    for number in range(events):
        await scene.routed(an_event(SOON), *FIFTY[number::events])
    claims = await scene.sending()
    details = [{"provider": "twilio", "provider_id": provider_id(claim)} for claim in claims]
    endings = [Ending(claim, Status.SENT, detail) for claim, detail in zip(claims, details, strict=True)]
    await scene.store.attempts.record(endings)
    assert await scene.store.caught_up(10)
    return claims


async def called_back(scene: Scene, claims: list[Claim], message: str, *, ago_ms: int = 10_000) -> None:
    """Twilio tells that a message of each attempt was delivered."""
    at_ms = await scene.store.flights.now_ms() - ago_ms
    for number, claim in enumerate(claims):
        told = {
            "delivery": str(ids.delivery_id(claim.notification, claim.step, claim.channel)),
            "attempt": claim.attempt,
            "provider_id": f"{message}{number}",
            "word": "delivered",
        }
        named = {"f": "callback", "provider": "twilio", "at": at_ms, "id": f"{message}{number}:delivered"}
        await scene.store.facts.append([named | {"raw": {}, "cid": "c1"} | told])
    assert await scene.store.caught_up(10)


async def test_messages_that_are_there_twice_are_counted_once_and_raise_an_alert(scene: Scene) -> None:
    async with scene.draining():
        claims = await sent(scene, lambda _: None)
        await called_back(scene, claims, "SMa")
        assert "duplicates" not in (await scene.run()).checks
        # A span that was looked at is not looked at again, so the lie comes later.
        await scene.store.postgres.call(
            ask, "update reconciliation_place set place = jsonb_set(place, '{cursors,callbacks}', to_jsonb(%s::text))",
            str(await scene.store.flights.now_ms() - 9_000),
        )  # fmt: skip
        await called_back(scene, claims, "SMb", ago_ms=8_000)
        found, again = await scene.run(), await scene.run()
    assert (found.checks["duplicates"].before, found.checks["duplicates"].after) == (50, 50)
    assert found.providers["twilio"]["duplicates"] == 50
    assert [each.count for each in found.worst] == [50]
    assert "duplicates" not in again.checks
    assert scene.registry.get_sample_value("tocsin_alerts_total", {"kind": "duplicates"}) == 1


async def test_a_message_other_than_the_one_that_was_answered_for_is_a_duplicate(scene: Scene) -> None:
    async with scene.draining():
        claims = await sent(scene, lambda claim: f"SM-{claim.user}")
        await scene.store.postgres.call(
            ask,
            "update deliveries set history = jsonb_set(history, '{1:SENT,at}',"
            " to_jsonb((history -> '1:SENT' ->> 'at')::bigint - 60000))",
        )
        await called_back(scene, claims, "SMb")
        found = await scene.run()
    assert found.checks["duplicates"].before == 50


async def test_duplicates_of_several_events_are_added_up_by_provider(scene: Scene) -> None:
    async with scene.draining():
        claims = await sent(scene, lambda _: None, events=2)
        await called_back(scene, claims, "SMa")
        await called_back(scene, claims, "SMb")
        found = await scene.run()
    assert found.providers["twilio"]["duplicates"] == found.checks["duplicates"].before == 50
    assert [each.count for each in found.worst] == [25, 25]
    assert scene.registry.get_sample_value("tocsin_alerts_total", {"kind": "duplicates"}) == 1


async def test_duplicates_on_three_days_running_raise_an_alert(scene: Scene) -> None:
    async with scene.draining():
        for days in (2, 1):
            await scene.run()
            await scene.store.postgres.call(
                ask,
                "update reconciliations set started_at = started_at - %s * interval '1 day',"
                ' checks = \'{"duplicates": {"before": 1, "repaired": 0, "not_judged": 0}}\''
                " where started_at > now() - interval '1 hour'",
                days,
            )
        claims = await sent(scene, lambda _: None)
        await scene.store.postgres.call(ask, "delete from reconciliation_place")
        await called_back(scene, claims[:1], "SMa")
        await called_back(scene, claims[:1], "SMb")
        await scene.run()
    assert scene.registry.get_sample_value("tocsin_alerts_total", {"kind": "duplicates_running"}) == 1
    assert scene.registry.get_sample_value("tocsin_alerts_total", {"kind": "duplicates"}) is None


async def test_receipts_that_never_came_are_asked_for(scene: Scene, sender: Sender, twilio: TwilioFake) -> None:
    async with scene.draining():
        await scene.routed(an_event(SOON), *FIFTY)
        claims = await scene.sending()
        messages = await messages_for(scene.store, claims)
        outcomes = [await sender.send(message) for message in messages.values() if message]
        details = [{"provider": "twilio", "provider_id": outcome.provider_id} for outcome in outcomes]
        endings = [Ending(claim, Status.SENT, detail) for claim, detail in zip(messages, details, strict=True)]
        await scene.store.attempts.record(endings)
        assert await scene.statuses() == {"SENT": 50}
        report = await scene.with_senders({Channel.SMS: sender}).run()
        assert (report.checks["receipts"].before, report.checks["receipts"].after) == (50, 0)
        assert report.providers["twilio"]["receipts"] == 50
        assert await scene.statuses() == {"DELIVERED": 50}


async def test_what_nobody_knows_is_counted_by_provider(scene: Scene) -> None:
    async with scene.draining():
        await scene.routed(an_event(SOON), *FIFTY)
        claims = await scene.sending()
        detail = {"provider": "twilio"}
        await scene.store.attempts.record([Ending(claim, Status.UNCERTAIN, detail) for claim in claims])
        report = await scene.run()
    assert report.providers["twilio"]["uncertain"] == 50
    assert report.in_sync
