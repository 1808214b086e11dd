"""The rules of ids, strategies, plans, opt-outs and retries, as properties."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin.domain import ids
from tocsin.domain.delivery import Channel, Reason
from tocsin.domain.event import Contact, Recipient
from tocsin.domain.plan import Policy, Priority, Step, Strategy, plan_for, steps_for, strategy_for
from tocsin.domain.preferences import allows
from tocsin.domain.retry import RetryRule

milliseconds = st.integers(min_value=0, max_value=2**48 - 1)
randomness = st.binary(min_size=10, max_size=10)
users = st.text(min_size=1, max_size=128)
channels = st.sampled_from(list(Channel))
policies = st.lists(st.builds(Step, channels, st.integers(0, 10**9)), min_size=1, max_size=8).map(
    lambda steps: Policy("p", tuple(steps))
)


@given(milliseconds, randomness, users)
def test_ids_of_one_event_lie_together_and_say_their_version(start_ms: int, drawn: bytes, user: str) -> None:
    event = ids.event_id(start_ms, drawn)
    note = ids.notification_id(event, user)
    delivery = ids.delivery_id(note, 1, Channel.SMS)
    assert (event.version, note.version, delivery.version) == (7, 8, 8)
    assert {UUID(str(each)).variant for each in (event, note, delivery)} == {"specified in RFC 4122"}
    assert {ids.start_ms(each) for each in (event, note, delivery)} == {start_ms}


@given(milliseconds, randomness, users, users)
def test_the_same_work_makes_the_same_ids_and_other_work_others(
    start_ms: int, drawn: bytes, one: str, other: str
) -> None:
    event = ids.event_id(start_ms, drawn)
    assert (ids.notification_id(event, one) == ids.notification_id(event, other)) == (one == other)
    note = ids.notification_id(event, one)
    assert ids.delivery_id(note, 1, Channel.SMS) == ids.delivery_id(note, 1, Channel.SMS)
    assert ids.delivery_id(note, 1, Channel.SMS) != ids.delivery_id(note, 2, Channel.SMS)


@pytest.mark.parametrize(("priority", "asked", "followed"), [
    (Priority.CRITICAL, Strategy.ESCALATION, Strategy.BROADCAST),
    (Priority.CRITICAL, None, Strategy.BROADCAST),
    (Priority.HIGH, None, Strategy.BROADCAST),
    (Priority.HIGH, Strategy.ESCALATION, Strategy.ESCALATION),
    (Priority.MEDIUM, None, Strategy.ESCALATION),
    (Priority.LOW, None, Strategy.ESCALATION),
    (Priority.LOW, Strategy.BROADCAST, Strategy.BROADCAST),
])  # fmt: skip
def test_the_strategy_is_what_was_asked_unless_it_matters_most(
    priority: Priority, asked: Strategy | None, followed: Strategy
) -> None:
    assert strategy_for(priority, asked) is followed


def test_a_types_default_strategy_yields_to_what_was_asked_and_to_critical() -> None:
    assert strategy_for(Priority.LOW, None, Strategy.BROADCAST) is Strategy.BROADCAST
    assert strategy_for(Priority.LOW, Strategy.ESCALATION, Strategy.BROADCAST) is Strategy.ESCALATION
    assert strategy_for(Priority.CRITICAL, None, Strategy.ESCALATION) is Strategy.BROADCAST


@given(policies, st.sets(channels, min_size=1))
def test_a_broadcast_takes_every_allowed_channel_once_and_now(policy: Policy, allowed: set[Channel]) -> None:
    steps = steps_for(Strategy.BROADCAST, policy, list(allowed))
    assert {step.channel for step in steps} == allowed
    assert len(steps) == len(allowed)
    assert {step.after_ms for step in steps} == {0}


@given(policies, st.sets(channels), st.sets(channels))
def test_a_step_that_cannot_be_taken_changes_nothing_for_the_others(
    policy: Policy, reachable: set[Channel], off: set[Channel]
) -> None:
    steps = steps_for(Strategy.ESCALATION, policy, list(Channel))
    whole = plan_for(steps, dict.fromkeys(Channel, "x"), lambda _: True)
    plan = plan_for(steps, dict.fromkeys(reachable, "x"), lambda channel: channel not in off)
    assert [(p.step, p.channel, p.after_ms) for p in plan] == [(p.step, p.channel, p.after_ms) for p in whole]
    for planned in plan:
        expected = (
            Reason.OPTED_OUT if planned.channel in off else None if planned.channel in reachable else Reason.NO_ADDRESS
        )
        assert planned.reason is expected


def test_nobody_inactive_is_reached() -> None:
    plan = plan_for((Step(Channel.IN_APP, 0),), {Channel.IN_APP: "u"}, lambda _: True, active=False)
    assert [planned.reason for planned in plan] == [Reason.INACTIVE]


@pytest.mark.parametrize(("off", "allowed"), [
    ((), True),
    (("SMS",), False),
    (("EMAIL",), True),
    (("SMS@event.approval",), False),
    (("SMS@event.other",), True),
])  # fmt: skip
def test_off_means_off(off: tuple[str, ...], allowed: bool) -> None:
    assert allows(off, Channel.SMS, "event.approval") is allowed
    assert allows(off, Channel.SMS, "event.approval", mandatory=True)


def test_what_is_given_inline_counts_before_what_is_stored() -> None:
    stored = Contact(id="u", email="old@example.org", phone="+14155550100", opt_outs=("SMS",))
    overlaid = stored.overlaid(Recipient(id="u", email="new@example.org"))
    assert (overlaid.email, overlaid.phone, overlaid.opt_outs) == ("new@example.org", "+14155550100", ("SMS",))


rules = st.builds(
    RetryRule,
    attempts=st.integers(1, 10),
    base_ms=st.integers(1, 60_000),
    cap_ms=st.integers(60_000, 10**7),
    jitter=st.floats(0, 1),
)


@given(rules, st.integers(1, 10), st.floats(0, 1), st.none() | st.floats(0, 3600))
def test_a_retry_waits_within_its_bounds_and_as_long_as_it_was_asked_to(
    rule: RetryRule, attempt: int, chance: float, asked_s: float | None
) -> None:
    delay = rule.delay_ms(attempt, chance, asked_s)
    assert delay >= int((asked_s or 0) * 1000)
    assert delay <= max(rule.cap_ms * (1 + rule.jitter), (asked_s or 0) * 1000)


def test_waits_double_and_attempts_end() -> None:
    rule = RetryRule(attempts=3, base_ms=1_000, cap_ms=3_000, jitter=0.0)
    assert [rule.delay_ms(attempt, 0.5) for attempt in (1, 2, 3)] == [1_000, 2_000, 3_000]
    assert [rule.allows(attempt) for attempt in (1, 2, 3)] == [True, True, False]
