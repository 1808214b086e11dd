"""The plan of a notification: which channels it may take, at what offset from its start, and which never.

A policy is a list of steps; BROADCAST takes every allowed channel at once. Pure: no clock, no I/O.
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tocsin.domain.delivery import Channel, Reason


class Strategy(StrEnum):
    """How the channels of a plan follow each other."""

    BROADCAST = "BROADCAST"
    ESCALATION = "ESCALATION"


class Priority(StrEnum):
    """How much a notification matters."""

    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"
    CRITICAL = "CRITICAL"


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a policy: a channel, `after_ms` milliseconds from the start."""

    channel: Channel
    after_ms: int


@dataclass(frozen=True, slots=True)
class Policy:
    """A named sequence of steps, ordered by time."""

    name: str
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step as it stands for some people: `reason` is set when it is not to be made."""

    step: int
    channel: Channel
    after_ms: int
    reason: Reason | None


Plan = tuple[PlannedStep, ...]
"""A plan says nothing that is one person's alone: people who are reached alike share it."""


BROADCAST_ORDER: Final = (Channel.IN_APP, Channel.PUSH, Channel.SMS, Channel.EMAIL)


def strategy_for(priority: Priority, asked: Strategy | None, default: Strategy | None = None) -> Strategy:
    """The strategy that is followed (S3): CRITICAL broadcasts; else what was asked, the type's, the priority's."""
    if priority is Priority.CRITICAL:
        return Strategy.BROADCAST
    if asked or default:
        return asked or default  # type: ignore[return-value]  # one of the two is set
    return Strategy.BROADCAST if priority is Priority.HIGH else Strategy.ESCALATION


def steps_for(strategy: Strategy, policy: Policy, channels: Sequence[Channel]) -> tuple[Step, ...]:
    """The steps of an event that may take `channels`; a channel that the policy does not name takes no step in an
    escalation."""
    if strategy is Strategy.BROADCAST:
        return tuple(Step(channel, 0) for channel in BROADCAST_ORDER if channel in channels)
    return tuple(step for step in policy.steps if step.channel in channels)


def plan_for(
    steps: Sequence[Step],
    reachable: Container[Channel],
    allowed: Callable[[Channel], bool],
    *,
    active: bool = True,
) -> Plan:
    """The plan of people who are `reachable` there. A step that cannot be taken keeps its number, so that the later
    ones keep their times."""
    return tuple(
        PlannedStep(
            step=number,
            channel=step.channel,
            after_ms=step.after_ms,
            reason=_hindrance(step.channel, reachable, allowed, active=active),
        )
        for number, step in enumerate(steps, start=1)
    )


def _hindrance(
    channel: Channel, reachable: Container[Channel], allowed: Callable[[Channel], bool], *, active: bool
) -> Reason | None:
    if not active:
        return Reason.INACTIVE
    if not allowed(channel):
        return Reason.OPTED_OUT
    return None if channel in reachable else Reason.NO_ADDRESS
