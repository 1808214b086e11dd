"""What must be true of each scene of the demo, judged by what journey and outbox say. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tocsin.cli.demo_scenes import ALERT, APPROVAL, COSTLY, NEWS, NEWS_READ, PLANNED, Scene
from tocsin.cli.journey import CHANNEL_NAMES, Document, milliseconds
from tocsin.domain.delivery import Channel, Reason, Status
from tocsin.domain.plan import Strategy

_MINUTE_MS: Final = 60_000
_DEFAULT_AFTER_MS: Final = {Channel.SMS: 10 * _MINUTE_MS, Channel.EMAIL: 40 * _MINUTE_MS}
_REACHED: Final = frozenset({Status.SENT, Status.DELIVERED})


@dataclass(frozen=True, slots=True)
class Told:
    """A scene as it was read back: the event, the journey of its one notification, and the outbox's messages of it."""

    scene: Scene
    event: Document
    journey: Document
    outbox: Sequence[Document]

    @property
    def deliveries(self) -> dict[Channel, Document]:
        """The deliveries by channel; the demo's plans take each channel once."""
        return {Channel(each["channel"]): each for each in self.journey["deliveries"]}


@dataclass(frozen=True, slots=True)
class Check:
    """Something that must hold, whether it did, and what was found where it did not."""

    scene: str
    claim: str
    holds: bool
    found: str = ""


def judge(told: Told) -> list[Check]:
    """Every check of one scene."""
    checks = _CHECKS[told.scene.letter]
    return [*checks(told), _one_message_each(told)]


def _approval(told: Told) -> Iterator[Check]:
    yield _followed(told, Strategy.BROADCAST)
    yield _reached_everywhere(told)
    yield _at_once(told)


def _news(told: Told) -> Iterator[Check]:
    yield _followed(told, Strategy.ESCALATION)
    yield _reached_everywhere(told)
    early = [name for channel, name in CHANNEL_NAMES.items() if _is_early(told, Channel(channel))]
    yield _check(told, "no step went out before its time", not early, ", ".join(early))
    sms, email = (_arrivals(told, channel) for channel in (Channel.SMS, Channel.EMAIL))
    yield _check(told, "the SMS came first, the email after it", bool(sms and email) and max(sms) < min(email))


def _news_read(told: Told) -> Iterator[Check]:
    yield _check(told, "the read was recorded", told.journey["notification"]["read"])
    yield _check(told, "in-app and push had gone out at once", {Channel.IN_APP, Channel.PUSH} <= _reached(told))
    for channel in (Channel.SMS, Channel.EMAIL):
        each = told.deliveries.get(channel, {})
        stopped = (each.get("status"), each.get("reason")) == (Status.CANCELLED, Reason.READ)
        yield _check(told, f"the read cancelled the {CHANNEL_NAMES[channel]}", stopped, str(each.get("status")))
    came = [CHANNEL_NAMES[entry["channel"]] for entry in told.outbox if entry["channel"] in COSTLY]
    yield _check(told, "after the read no SMS and no email of it is in the outbox", not came, ", ".join(came))


def _alert(told: Told) -> Iterator[Check]:
    yield _check(told, "ESCALATION was asked", told.event["askedStrategy"] == Strategy.ESCALATION)
    yield _followed(told, Strategy.BROADCAST)
    yield _reached_everywhere(told)
    yield _at_once(told)


def _planned(told: Told) -> Iterator[Check]:
    for channel, after_ms in _DEFAULT_AFTER_MS.items():
        name = CHANNEL_NAMES[channel]
        found_ms = _after_start_ms(told, channel)
        found = "no time" if found_ms is None else f"{found_ms / _MINUTE_MS:g} minutes"
        claim = f"the {name} is scheduled {after_ms // _MINUTE_MS} minutes after the start"
        yield _check(told, claim, found_ms == after_ms, found)
        status = told.deliveries.get(channel, {}).get("status")
        yield _check(told, f"withdrawn, the {name} is cancelled", status == Status.CANCELLED, str(status))


def _followed(told: Told, strategy: Strategy) -> Check:
    found = told.event["deliveryStrategy"]
    return _check(told, f"{strategy} was followed", found == strategy, found)


def _reached_everywhere(told: Told) -> Check:
    missing = [CHANNEL_NAMES[channel] for channel in Channel if channel not in _reached(told)]
    claim = "it went out in-app, by push, SMS and email"
    return _check(told, claim, not missing, f"not by {', '.join(missing)}")


def _at_once(told: Told) -> Check:
    times = {each["scheduledFor"] for each in told.journey["deliveries"]}
    return _check(told, "every channel started at the same moment", len(times) == 1, f"{len(times)} times")


def _one_message_each(told: Told) -> Check:
    came = Counter(entry["deliveryId"] for entry in told.outbox)
    due = {each["id"] for channel, each in told.deliveries.items() if channel in _reached(told) - {Channel.IN_APP}}
    claim = f"exactly one message for each delivery that went out ({len(due)})"
    return _check(told, claim, came == Counter(due), f"{came.total()} messages of {len(came)} deliveries")


def _reached(told: Told) -> set[Channel]:
    return {channel for channel, each in told.deliveries.items() if Status(each["status"]) in _REACHED}


def _is_early(told: Told, channel: Channel) -> bool:
    scheduled_ms = _scheduled_ms(told, channel)
    return scheduled_ms is not None and any(at_ms < scheduled_ms for at_ms in _arrivals(told, channel))


def _arrivals(told: Told, channel: Channel) -> list[int]:
    return [milliseconds(entry["receivedAt"]) for entry in told.outbox if entry["channel"] == channel]


def _after_start_ms(told: Told, channel: Channel) -> int | None:
    start_ms, scheduled_ms = _scheduled_ms(told, Channel.IN_APP), _scheduled_ms(told, channel)
    return None if start_ms is None or scheduled_ms is None else scheduled_ms - start_ms


def _scheduled_ms(told: Told, channel: Channel) -> int | None:
    scheduled = told.deliveries.get(channel, {}).get("scheduledFor")
    return milliseconds(scheduled) if scheduled else None


def _check(told: Told, claim: str, holds: Any, found: str = "") -> Check:
    return Check(told.scene.letter, claim, bool(holds), "" if holds else found)


_CHECKS: Final[Mapping[str, Any]] = {
    APPROVAL.letter: _approval,
    NEWS.letter: _news,
    NEWS_READ.letter: _news_read,
    ALERT.letter: _alert,
    PLANNED.letter: _planned,
}
