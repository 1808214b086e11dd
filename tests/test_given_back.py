"""What a lane has claimed and does not send goes back as it was: to be claimed again, with its attempt."""

import asyncio
from functools import partial
from typing import Any

import pytest

from tests.scenes import an_event, routed
from tests.test_lanes import Carrier, lane, run_until, sms_to, store, told, until  # noqa: F401  # a fixture among them
from tests.test_scripts_again import bench, clock  # noqa: F401  # fixtures
from tests.workbench import LEASE_MS, Bench, eventually
from tocsin.domain.delivery import Channel
from tocsin.domain.errors import RedisAway
from tocsin.domain.plan import Step
from tocsin.storage.store import Store


@pytest.mark.parametrize("done", [False, True], ids=["not-done", "done-unheard"])
async def test_redis_away_as_a_call_begins_costs_no_attempt_however_often(
    store: Store,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    done: bool,
) -> None:
    await sms_to(store, "u1")
    sms = lane(store, carrier := Carrier(), attempts=1)
    begin, tries = store.attempts.begin, 0

    async def away_at_first(*claims: Any, **rules: Any) -> list[bool]:
        nonlocal tries
        tries += 1
        if tries > 3:
            return await begin(*claims, **rules)
        if done:
            await begin(*claims, **rules)
        raise RedisAway("it went away")

    monkeypatch.setattr(store.attempts, "begin", away_at_first)
    await run_until(sms, lambda: len(carrier.got) == 1)
    await sms.close(2)
    assert carrier.got[0].attempt == 1
    moves = [(attempt, status) for attempt, status, _ in await told(store)]
    assert moves == [(1, "SENDING")] * (4 if done else 1) + [(1, "SENT")]


async def test_what_is_given_back_though_it_counts_as_begun_can_still_be_read_away(bench: Bench) -> None:  # noqa: F811
    await routed(bench.flights, an_event(Step(Channel.SMS, 0)), "u1")
    (claim,) = await bench.sending(Channel.SMS, "t1")
    await bench.attempts.release([claim], "t1")
    await bench.flights.read("u1", [(claim.notification, True)])
    assert await bench.claim(Channel.SMS, "t2") == []
    assert [(attempt, status) for _, attempt, status, _ in await bench.moves()] == [(1, "SENDING"), (1, "CANCELLED")]
    assert await bench.leftovers() == set()


async def test_a_beginning_that_comes_again_after_its_lease_is_refused_to_its_own_holder(
    bench: Bench,  # noqa: F811
    clock: Any,  # noqa: F811
) -> None:
    await routed(bench.flights, an_event(Step(Channel.SMS, 0)), "u1")
    claims = await bench.sending(Channel.SMS, "t1")
    assert await bench.attempts.begin(claims, "t1", lease_ms=LEASE_MS, detail={}) == [True]
    clock.advance(LEASE_MS)
    assert await bench.attempts.begin(claims, "t1", lease_ms=LEASE_MS, detail={}) == [False]


async def test_what_was_claimed_ahead_waits_a_quarter_of_a_second_from_its_claim_though_slots_come_free(
    store: Store,  # noqa: F811
) -> None:
    """A provider that was quick takes its time: it goes on sending, one each 50 ms, and holds nothing beyond them."""
    everybody = [f"u{number}" for number in range(40)]
    carrier = Carrier(concurrency=1)
    await sms_to(store, *everybody)
    sms = lane(store, carrier)
    sms._pace._per_s, sms._pace._since_s = 400.0, float("inf")
    send = carrier.send

    async def slowly(message: Any) -> Any:
        await asyncio.sleep(0.05)
        return await send(message)

    carrier.send = slowly  # type: ignore[method-assign]
    running = asyncio.create_task(sms.run())
    await until(lambda: bool(carrier.got))
    others = partial(store.attempts.claim, Channel.SMS, "other", 100, lease_ms=60_000, attempts=3, resend=False)
    assert len(await eventually(others)) > 20
    assert len(carrier.got) < 20
    await sms.close(2)
    await running
