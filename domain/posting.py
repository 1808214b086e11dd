"""From what a caller asks for to an event with everything resolved: type, channels, strategy, policy and steps.

Called by http/ before anything is stored. Pure: ids, times and what is known about people come in as arguments.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from tocsin.domain.addresses import (
    USER_ID,
    fit_locale,
    fit_name,
    fit_user_id,
    known_timezone,
    normal_email,
    normal_phone,
)
from tocsin.domain.delivery import Channel
from tocsin.domain.errors import InvalidInput
from tocsin.domain.event import Event, Recipient, Source
from tocsin.domain.plan import BROADCAST_ORDER, Priority, Strategy, steps_for, strategy_for
from tocsin.domain.setting_sources import normal_type
from tocsin.domain.settings import Settings

_CHECKS: Final = {
    "id": fit_user_id,
    "email": normal_email,
    "phone": normal_phone,
    "name": fit_name,
    "locale": fit_locale,
    "timezone": known_timezone,
}


@dataclass(frozen=True, slots=True)
class Posting:
    """What a caller asked for, before defaults."""

    type: str
    message: str
    title: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    channels: Sequence[Channel] | None = None
    strategy: Strategy | None = None
    priority: Priority | None = None
    policy: str | None = None
    key: str | None = None
    signature: str | None = None
    """What tells it from another event with its key; given where there is one."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A recipient that cannot be notified: which of its fields is wrong, and the code of the problem."""

    id: str
    code: str
    field: str


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an event comes from: its id, the time in ms, the key's name and the correlation id of the request."""

    id: UUID
    now_ms: int
    sender: str
    cid: str
    source: Source = Source.API_ACTION


def compose(posting: Posting, origin: Origin, settings: Settings) -> Event:
    """The event that `posting` makes, to nobody yet. Raises InvalidInput, whose code is one of http/problems.py."""
    _check_sizes(posting, settings)
    event_type = normal_type(posting.type)
    defaults = settings.type_defaults(event_type)
    asked = posting.channels or defaults.channels
    channels = tuple(channel for channel in BROADCAST_ORDER if channel in asked)
    priority = posting.priority or defaults.priority
    strategy = strategy_for(priority, posting.strategy, defaults.strategy)
    name = posting.policy or "default"
    policy = settings.policy(name)
    if policy is None:
        raise InvalidInput("/policy", "There is no policy of that name.", code="unknown_policy")
    steps = steps_for(strategy, policy, channels)
    if not steps:
        raise InvalidInput("/channels", "The policy has no step on these channels.", code="no_steps")
    return Event(
        id=origin.id,
        type=event_type,
        source=origin.source,
        title=posting.title,
        message=posting.message,
        metadata=dict(posting.metadata),
        channels=channels,
        asked_strategy=posting.strategy,
        strategy=strategy,
        priority=priority,
        policy=name,
        steps=steps,
        mandatory=defaults.mandatory,
        sender=origin.sender,
        cid=origin.cid,
        accepted_ms=origin.now_ms,
        recipient_count=0,
        event_key=posting.key,
        signature=posting.signature,
    )


def screen(recipients: Iterable[Recipient]) -> tuple[list[Recipient], list[Rejected]]:
    """The recipients whose inline details are right, made normal, and those with a wrong one. Of two with one id the
    first counts."""
    good: dict[str, Recipient] = {}
    rejected: list[Rejected] = []
    for recipient in recipients:
        if recipient.id in good:
            continue
        try:
            good[recipient.id] = _normal(recipient)
        except InvalidInput as error:
            rejected.append(Rejected(recipient.id, error.code, error.field))
    return list(good.values()), rejected


def screen_ids(users: Iterable[str]) -> tuple[list[str], list[Rejected]]:
    """Those of `users` that can be user ids, and the others."""
    good: list[str] = []
    rejected: list[Rejected] = []
    for user in users:
        if USER_ID.fullmatch(user):
            good.append(user)
        else:
            rejected.append(Rejected(user, "bad_user_id", "id"))
    return good, rejected


def check_metadata(metadata: Mapping[str, Any], limit_bytes: int) -> None:
    """Raises InvalidInput where metadata cannot be kept: too large, not finite, or with NUL in a text."""
    try:
        text = json.dumps(metadata, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except ValueError as error:
        raise InvalidInput("/metadata", "A number is not finite.", code="invalid_value") from error
    if len(text.encode()) > limit_bytes:
        raise InvalidInput("/metadata", f"The metadata is longer than {limit_bytes} bytes as JSON.", code="too_long")
    if "\\u0000" in text and _holds_nul(metadata):
        raise InvalidInput("/metadata", "A text holds the character NUL.", code="bad_format")


def _check_sizes(posting: Posting, settings: Settings) -> None:
    limits = settings.limits
    if len(posting.message) > limits.message:
        raise InvalidInput("/message", f"It is longer than {limits.message} characters.", code="too_long")
    if not posting.message.strip():
        raise InvalidInput("/message", "It is blank.", code="too_short")
    if posting.title is not None and len(posting.title) > limits.title:
        raise InvalidInput("/title", f"It is longer than {limits.title} characters.", code="too_long")
    if posting.metadata:
        check_metadata(posting.metadata, limits.metadata)


def _normal(recipient: Recipient) -> Recipient:
    given = {name: check(value) for name, check in _CHECKS.items() if (value := getattr(recipient, name)) is not None}
    return recipient.model_copy(update=given) if given else recipient


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, Mapping):
        return any("\0" in key or _holds_nul(item) for key, item in value.items())
    return isinstance(value, list) and any(map(_holds_nul, value))
