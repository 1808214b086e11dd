"""What every provider that can be asked must do: it finds again what it took, exactly that, and sends nothing by it."""

import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import pytest

from tests.fakes.behaviour import Behaviour, Fake, a_message
from tests.test_channel_contract import Build, build, fake
from tocsin.channels.contract import Askable, Known, Message, Provider, Sender
from tocsin.channels.registry import find_providers
from tocsin.domain.delivery import Status
from tocsin.domain.errors import ProviderAway

__all__ = ["build", "fake"]

HOUR_MS = 3_600_000
ACCEPTED = {Status.SENT, Status.DELIVERED}


ASKABLE = [each for each in find_providers() if hasattr(import_module(f"tests.fakes.{each.name}"), "ASKABLE")]


@pytest.fixture(params=ASKABLE, ids=lambda provider: provider.name)
def provider(request: pytest.FixtureRequest) -> Provider:
    found: Provider = request.param
    return found


@pytest.fixture
def sender(fake: Fake, build: Build) -> Sender:
    made = build({**fake.table(), "timeout": "1s"})
    assert isinstance(made, Askable)
    return made


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def search(sender: Any, message: Message) -> Sequence[Known]:
    found: Sequence[Known] = await sender.search(message, now_ms() - HOUR_MS, now_ms() + HOUR_MS)
    return found


async def test_what_was_sent_is_found_by_the_providers_own_id(sender: Any, fake: Fake) -> None:
    outcome = await sender.send(a_message(sender.channel))
    found = await sender.fetch(outcome.provider_id)
    assert (found.provider_id, found.status in ACCEPTED) == (outcome.provider_id, True)
    assert abs(found.at_ms - now_ms()) < 10_000
    assert fake.asked == 1


async def test_what_it_does_not_have_is_not_found(sender: Any) -> None:
    assert await sender.fetch("SM" + "0" * 32) is None
    assert await sender.fetch("../../Accounts") is None
    assert await search(sender, a_message(sender.channel)) == []


async def test_what_was_taken_while_the_answer_was_lost_is_found_by_its_to_and_body(sender: Any, fake: Fake) -> None:
    message = a_message(sender.channel)
    fake.behaviour = Behaviour.DROP
    await sender.send(message)
    (found,) = await search(sender, message)
    assert found.status in ACCEPTED
    assert await search(sender, a_message(sender.channel, text="Something else")) == []
    assert await search(sender, a_message(sender.channel, address="+14155550199")) == []
    assert await sender.search(message, now_ms() - 2 * HOUR_MS, now_ms() - HOUR_MS) == []
    assert (fake.asked, len(fake.taken)) == (1, 1)


async def test_two_alike_are_both_found(sender: Any) -> None:
    message = a_message(sender.channel)
    ids = {(await sender.send(message)).provider_id for _ in range(2)}
    assert {found.provider_id for found in await search(sender, message)} == ids


async def test_messages_are_counted_over_many_pages(sender: Any, fake: Any) -> None:
    for _ in range(3):
        await sender.send(a_message(sender.channel))
    messages = fake.server.messages
    for number in range(2_000):
        messages.add(f"SM{number}", {"To": "+14155550101", "From": sender._from, "Body": "x"})
    messages.add("SMother", {"To": "+14155550101", "From": "+15005550099", "Body": "x"})
    assert await sender.count(now_ms() - HOUR_MS, now_ms() + HOUR_MS) == 2_003
    assert await sender.count(now_ms() - 2 * HOUR_MS, now_ms() - HOUR_MS) == 0


async def test_the_state_that_it_tells_is_that_of_the_moment(sender: Any) -> None:
    outcome = await sender.send(a_message(sender.channel, address="+15005550031"))

    async def word() -> str:
        return str((await sender.fetch(outcome.provider_id)).word)

    deadline = time.monotonic() + 5
    while await word() != "undelivered":
        assert time.monotonic() < deadline
    found = await sender.fetch(outcome.provider_id)
    assert (found.status, found.code) == (Status.BOUNCED, "30003")


async def test_a_provider_that_is_away_or_says_no_is_told_without_an_address(
    provider: Provider, sender: Any, fake: Fake, build: Build
) -> None:
    message = a_message(sender.channel)
    wrong: Any = build({**fake.table(), **fake.wrong_credentials()})
    with pytest.raises(ProviderAway) as refused:
        await wrong.fetch("SM1")
    await fake.stop()
    with pytest.raises(ProviderAway) as away:
        await search(sender, message)
    for private in (message.address, *fake.secrets):
        assert private not in f"{refused.value} {away.value}"


async def test_receipts_are_promised_where_they_can_arrive(sender: Any) -> None:
    assert sender.gives_receipts
