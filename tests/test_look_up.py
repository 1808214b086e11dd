"""A provider that can be asked settles what is in doubt: exactly, or by time, and never by guess."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.fakes.behaviour import Behaviour
from tests.fakes.twilio import TwilioFake
from tests.served import SETTINGS, Served, notification_of, serving
from tests.stored import ask
from tests.workbench import LEASE_MS
from tocsin.actors.look_up import LookUpCounts, look_up
from tocsin.actors.messages import messages_for
from tocsin.channels.contract import BuildContext, Outcome, Sender
from tocsin.channels.twilio import PROVIDER
from tocsin.domain import ids
from tocsin.domain.delivery import Channel, Status
from tocsin.domain.settings import Settings
from tocsin.storage.flight_parts import Ending
from tocsin.storage.settling import Telling

pytestmark = pytest.mark.servers

AT_ONCE = {"uncertain.first_after": "1ms", "uncertain.receipt_after": "1ms", "uncertain.again_after": "1h"}
PHONE = "+14155550101"
HOLD_BACK = "+15005550033"


class Scene:
    """SMS through a Twilio that misbehaves, carried by hand."""

    def __init__(self, served: Served, fake: TwilioFake, sender: Any) -> None:
        self.served, self.fake, self.sender = served, fake, sender
        self.store = served.store
        drain = self.store.caught_up

        async def caught_up(limit_s: float = 2.0) -> bool:
            await served.stored()
            return await drain(limit_s)

        # No actors run here: what a persister would do at the nudge is done in its place.
        self.store.caught_up = caught_up  # type: ignore[method-assign]

    async def sms(self, status: Status, *, user: str = "asha", phone: str = PHONE, call: bool = True) -> str:
        """The id of an SMS that was sent (unless not to `call`) and of which `status` is known."""
        people = [{"id": user, "phone": phone}]
        note = notification_of(await self.served.routed(recipients=people, channels=["SMS"]), user)
        (claim,) = await self.store.attempts.claim(
            Channel.SMS, f"t-{note}", 10, lease_ms=LEASE_MS, attempts=3, resend=False
        )
        (message,) = (await messages_for(self.store, [claim])).values()
        assert message is not None
        await self.store.attempts.begin([claim], claim.token, lease_ms=LEASE_MS, detail={"provider": "twilio"})
        outcome: Outcome | None = await self.sender.send(message) if call else None
        detail = {"provider": "twilio"}
        if outcome and outcome.provider_id and status is Status.SENT:
            detail["provider_id"] = outcome.provider_id
        await self.store.attempts.record([Ending(claim, status, detail)])
        await self.served.stored()
        return str(ids.delivery_id(note, claim.step, Channel.SMS))

    async def look(self, limit: int = 50) -> LookUpCounts:
        found = await look_up(self.store, {Channel.SMS: self.sender}, limit)
        assert found is not None
        await self.served.stored()
        return found

    async def row(self, delivery: str) -> dict[str, Any]:
        answer: dict[str, Any] = (await self.served.api.get(f"/api/deliveries/{delivery}")).json()
        return answer

    async def told(self, delivery: str) -> dict[str, Any]:
        """The last thing that happened to it."""
        note = (await self.row(delivery))["notificationId"]
        journey = (await self.served.api.get(f"/api/notifications/{note}/journey")).json()["journey"]
        last: dict[str, Any] = [step for step in journey if step["deliveryId"] == delivery][-1]
        return last


@pytest.fixture
async def scene(settings: Callable[..., Settings], redis_url: str, postgres_url: str) -> AsyncIterator[Scene]:
    fake = TwilioFake()
    await fake.start()
    given = settings({**SETTINGS, **AT_ONCE, **{f"sms.twilio.{k}": v for k, v in fake.table().items()}})
    context = BuildContext(False, "http://127.0.0.1:9", "Tocsin", None, {})
    sender: Sender = PROVIDER.build(given.provider_settings(PROVIDER.section, PROVIDER.settings), context)
    async with serving(given, redis_url, postgres_url) as served:
        yield Scene(served, fake, sender)
    await sender.close()
    await fake.stop()


async def test_what_was_taken_while_its_answer_was_lost_is_found_by_time(scene: Scene) -> None:
    scene.fake.behaviour = Behaviour.DROP
    delivery = await scene.sms(Status.UNCERTAIN)
    assert await scene.look() == LookUpCounts(asked=1, settled=1)
    row, told = await scene.row(delivery), await scene.told(delivery)
    assert row["status"] in {"SENT", "DELIVERED"}
    assert row["providerId"].startswith("SM")
    assert (told["method"], told["confidence"]) == ("time_window", "high")
    assert abs(told["differenceMs"]) < 5_000
    assert scene.fake.asked == 1


async def test_what_the_provider_does_not_have_stays_uncertain_and_is_not_asked_about_again_at_once(
    scene: Scene,
) -> None:
    delivery = await scene.sms(Status.UNCERTAIN, call=False)
    assert await scene.look() == LookUpCounts(asked=1, not_found=1)
    assert await scene.look() == LookUpCounts()
    row = await scene.row(delivery)
    assert (row["status"], row["reason"]) == ("UNCERTAIN", "not_found")


async def test_one_message_that_can_be_either_of_two_is_nobodys(scene: Scene) -> None:
    scene.fake.behaviour = Behaviour.DROP
    one = await scene.sms(Status.UNCERTAIN, user="asha")
    other = await scene.sms(Status.UNCERTAIN, user="bina", call=False)
    assert await scene.look() == LookUpCounts(asked=2, tied=2)
    assert [(await scene.row(each))["status"] for each in (one, other)] == ["UNCERTAIN"] * 2


async def test_what_is_being_sent_just_now_may_be_the_one_too(scene: Scene) -> None:
    scene.fake.behaviour = Behaviour.DROP
    await scene.sms(Status.SENDING, user="bina")
    await scene.sms(Status.UNCERTAIN, user="asha", call=False)
    assert await scene.look() == LookUpCounts(asked=1, tied=1)


async def test_a_message_that_belongs_to_another_delivery_is_not_taken(scene: Scene) -> None:
    await scene.sms(Status.SENT, user="bina", phone=HOLD_BACK)
    delivery = await scene.sms(Status.UNCERTAIN, user="asha", phone=HOLD_BACK, call=False)
    await scene.look()
    assert (await scene.row(delivery))["reason"] == "not_found"


async def test_other_texts_and_other_numbers_are_no_rivals(scene: Scene) -> None:
    scene.fake.behaviour = Behaviour.DROP
    await scene.sms(Status.UNCERTAIN, user="bina", phone="+14155550102", call=False)
    await scene.sms(Status.UNCERTAIN, user="asha")
    assert await scene.look() == LookUpCounts(asked=2, settled=1, not_found=1)


async def test_what_lies_far_from_its_time_is_listed_and_changes_nothing(scene: Scene) -> None:
    delivery = await scene.sms(Status.UNCERTAIN, call=False)
    row = await scene.row(delivery)
    made = scene.fake.server.messages.add(
        "SMfar", {"To": PHONE, "From": scene.sender._from, "Body": "Your event has been approved"}
    )
    scene.fake.server.messages._messages["SMfar"]["date_created"] = _earlier(made["date_created"], seconds=30)
    assert await scene.look() == LookUpCounts(asked=1, low=1)
    assert await scene.row(delivery) == row
    ((result, confidence, provider_id, candidates),) = await scene.store.postgres.call(_kept)
    assert (result, confidence, provider_id, candidates) == ("LOW", "low", "SMfar", 1)


async def test_a_receipt_that_never_came_is_made_up_for_by_the_providers_own_id(scene: Scene) -> None:
    delivery = await scene.sms(Status.SENT, phone=HOLD_BACK)
    counts = LookUpCounts()
    while not counts.settled:
        assert counts.unanswered == 0
        await scene.store.postgres.call(_forget)
        counts = await scene.look()
    told = await scene.told(delivery)
    assert (told["what"], told["method"], told["confidence"]) == ("DELIVERED", "provider_id", "high")


async def test_what_the_provider_only_took_is_asked_about_again_later(scene: Scene) -> None:
    delivery = await scene.sms(Status.SENT, phone=HOLD_BACK)
    sid = (await scene.row(delivery))["providerId"]
    await scene.fake.server.close()
    scene.fake.server.messages.move(sid, "sent", None)
    assert await scene.look() == LookUpCounts(asked=1, unconfirmed=1)
    assert await scene.look() == LookUpCounts()
    assert (await scene.row(delivery))["status"] == "SENT"


async def test_a_provider_that_is_away_is_asked_again_in_the_next_run_and_not_by_all(scene: Scene) -> None:
    for number in range(5):
        await scene.sms(Status.UNCERTAIN, user=f"u{number}", phone=f"+1415555020{number}", call=False)
    await scene.fake.stop()
    for _ in range(2):
        assert await scene.look() == LookUpCounts(asked=5, unanswered=5)


async def test_one_process_asks_at_a_time(scene: Scene) -> None:
    async with scene.store.lock("look_up"):
        assert await look_up(scene.store, {Channel.SMS: scene.sender}, 50) is None


async def test_no_more_is_asked_about_than_is_allowed(scene: Scene) -> None:
    for number in range(3):
        await scene.sms(Status.UNCERTAIN, user=f"u{number}", phone=f"+1415555020{number}", call=False)
    assert [(await scene.look(limit=2)).asked for _ in range(3)] == [2, 1, 0]


async def test_what_another_provider_was_given_is_not_asked_of_this_one(scene: Scene) -> None:
    note = notification_of(
        await scene.served.routed(recipients=[{"id": "asha", "phone": PHONE}], channels=["SMS"]), "asha"
    )
    detail = {"provider": "sandbox", "provider_id": "SM1"}
    await scene.store.settle([Telling(note, 1, Channel.SMS, 1, Status.SENT, detail)])
    await scene.served.stored()
    assert await scene.look() == LookUpCounts()


def _earlier(date: str, *, seconds: int) -> str:
    from datetime import timedelta
    from email.utils import format_datetime, parsedate_to_datetime

    return format_datetime(parsedate_to_datetime(date) - timedelta(seconds=seconds))


def _kept() -> list[Any]:
    return ask("select result, confidence, provider_id, candidates from look_ups")


def _forget() -> list[Any]:
    return ask("delete from look_ups returning 1")
