"""What becomes known of attempts from elsewhere: receipts, look-ups at a provider, a person's word (design §6)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from tocsin.domain.delivery import Channel, Fact, Status
from tocsin.storage.life import Told
from tocsin.storage.scripts import Scripts


@dataclass(frozen=True, slots=True)
class Telling:
    """What is now known of one attempt. `word` is the provider's own; `detail` what is known beside."""

    notification: UUID
    step: int
    channel: Channel
    attempt: int
    status: Status
    detail: Fact
    word: str | None = None


class Settling:
    """The script by its name. Raises RedisAway."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    async def tell(self, tellings: Sequence[Telling], facts: Sequence[dict[str, Any]] = ()) -> list[bool]:
        """Records at most 100 `tellings`, and in the same step `facts` that have no other change in Redis. True for
        each by which something ends that waited for another attempt, or was under way."""
        arguments: list[object] = [len(facts), *(json.dumps(fact, separators=(",", ":")) for fact in facts)]
        for each in tellings:
            arguments += [each.notification, each.step, each.channel, each.attempt, each.status]
            arguments += [json.dumps(each.word), json.dumps(each.detail)]
        answer = await self._scripts.run("settle", *arguments)
        life = self._scripts.life
        life.remember(*facts, *(_fact_of(each, life.now_ms()) for each in tellings))
        return [text == "1" for text in answer]


def _fact_of(told: Telling, at_ms: int) -> Told:
    """As settle.lua tells it."""
    move = [str(told.notification), told.step, told.channel, told.attempt, told.status, told.word, at_ms, told.detail]
    return {"f": "moved", "d": [move]}
