"""What the sandbox's servers received: the newest of it, in the order it came. Written by their thread, read by any."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tocsin.domain.delivery import Channel

KEPT: Final = 1_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One message as it arrived. `delivery`, `notification` and `attempt` are what travelled with it; None where it
    did not. `raw` is the whole of it as the server saw it."""

    id: int
    channel: Channel
    at_ms: int
    to: str
    delivery: str | None = None
    notification: str | None = None
    attempt: int | None = None
    subject: str | None = None
    text: str = ""
    html: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    segments: int | None = None
    raw: Any = None


class Outbox:
    """The newest `kept` entries."""

    def __init__(self, kept: int = KEPT) -> None:
        self._entries: deque[Entry] = deque(maxlen=kept)
        self._changed = threading.Condition()
        self._received = 0

    @property
    def received(self) -> int:
        """How many ever came, those that are no longer kept among them."""
        return self._received

    def add(self, channel: Channel, to: str, **details: Any) -> Entry:
        """Keeps a message that arrived now."""
        with self._changed:
            self._received += 1
            entry = Entry(self._received, channel, time.time_ns() // 1_000_000, to, **details)
            self._entries.append(entry)
            self._changed.notify_all()
        return entry

    def entries(self, channel: Channel | None = None) -> list[Entry]:
        """What is kept, oldest first."""
        with self._changed:
            return [entry for entry in self._entries if channel in (None, entry.channel)]

    def wait_for(
        self, count: int = 1, *, where: Callable[[Entry], bool] = lambda _: True, limit_s: float = 10.0
    ) -> list[Entry]:
        """At least `count` entries for which `where` holds, waiting until they are there. Raises TimeoutError after
        `limit_s` seconds."""
        found: list[Entry] = []

        def enough() -> bool:
            found[:] = [entry for entry in self._entries if where(entry)]
            return len(found) >= count

        with self._changed:
            if not self._changed.wait_for(enough, limit_s):
                raise TimeoutError(f"{len(found)} of {count} messages arrived within {limit_s} s")
        return found

    def clear(self) -> None:
        """Forgets everything."""
        with self._changed:
            self._entries.clear()
