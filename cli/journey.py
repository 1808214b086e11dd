"""The journey of a notification in words, and following one until nothing more will happen to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from rich.text import Text

from tocsin.cli.screen import plain, status_text
from tocsin.cli.server import Refused, Server
from tocsin.domain.delivery import OPEN, Channel, Status

Document = Mapping[str, Any]
"""What the API answered, by its field names."""

CHANNEL_NAMES: Final[Mapping[str, str]] = {
    Channel.IN_APP: "in-app",
    Channel.PUSH: "push",
    Channel.SMS: "SMS",
    Channel.EMAIL: "email",
}
_LOOK_AGAIN_S: Final = 0.25
_NOT_FOUND: Final = 404


def milliseconds(moment: str) -> int:
    """A time of the API in ms since 1970."""
    return round(datetime.fromisoformat(moment).timestamp() * 1000)


def clock(moment: str | None) -> str | None:
    """A time of the API as it stands in a table: UTC, to the second."""
    return f"{datetime.fromisoformat(moment).astimezone(UTC):%Y-%m-%d %H:%M:%S}" if moment else None


def offset(moment: str, start_ms: int) -> str:
    """How long after `start_ms` something happened: "+3.21 s", "+10 min"."""
    seconds = (milliseconds(moment) - start_ms) / 1000
    if abs(seconds) < 120:
        return f"{seconds:+.2f} s"
    if abs(seconds) < 7200:
        return f"{seconds / 60:+.0f} min"
    return f"{seconds / 3600:+.1f} h" if abs(seconds) < 172_800 else f"{seconds / 86_400:+.0f} d"


def is_final(deliveries: Iterable[Document]) -> bool:
    """Whether nothing more starts by itself; a receipt may still come."""
    found = list(deliveries)
    return bool(found) and all(Status(each["status"]) not in OPEN for each in found)


def step_line(step: Document, start_ms: int) -> Text:
    """One thing that happened: when, on which channel, what, and what is known of it."""
    line = Text.assemble(
        f"{offset(step['at'], start_ms):>10}  ",
        f"{CHANNEL_NAMES.get(step['channel'] or '', ''):<7} ",
        padded(step["what"], 10),
        " ",
        (plain(about(step)), "dim"),
    )
    line.rstrip()
    return line


def padded(status: str, width: int) -> Text:
    """A status in its colour and lower case, `width` columns wide."""
    text = status_text(status)
    return Text(text.plain.lower().ljust(width), style=text.style)


def about(known: Document) -> str:
    """What is known beside the status of a step, or of a delivery."""
    told = [
        known.get("reason"),
        known.get("provider"),
        known.get("providerStatus"),
        known.get("providerId"),
        f"code {known['errorCode']}" if known.get("errorCode") else None,
        known.get("error") if known.get("error") != known.get("reason") else None,
        f"attempt {known['attempt']}" if (known.get("attempt") or 1) > 1 else None,
        f"due {clock(known['dueAt'])}" if known.get("dueAt") else None,
    ]
    return ", ".join(str(each) for each in told if each)


def identity(step: Document) -> tuple[Any, ...]:
    """What tells the steps of one journey apart."""
    return tuple(step.get(name) for name in ("at", "what", "deliveryId", "attempt", "providerStatus"))


async def follow(
    server: Server, notification: str, *, limit_s: float, tell: Callable[[Document, Document], None]
) -> Document | None:
    """The journey once it is final, or as it is after `limit_s` seconds; None where the notification is not known by
    then. `tell` gets the journey and each of its steps, once."""
    told: set[tuple[Any, ...]] = set()
    deadline = time.monotonic() + limit_s
    while True:
        journey: Document | None = await if_known(server.get(f"/api/notifications/{notification}/journey"))
        if journey:
            for step in journey["journey"]:
                if identity(step) not in told:
                    told.add(identity(step))
                    tell(journey, step)
        if (journey and is_final(journey["deliveries"])) or time.monotonic() > deadline:
            return journey
        await asyncio.sleep(_LOOK_AGAIN_S)


async def if_known(asked: Awaitable[Any]) -> Any:
    """The answer, or None where the server knows no such thing (yet)."""
    try:
        return await asked
    except Refused as refused:
        if refused.status != _NOT_FOUND:
            raise
        return None
