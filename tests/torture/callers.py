"""Requests as a careful caller makes them: through any HTTP process, again when it was not answered."""

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any

import httpx
import jwt

from tests.program import ADMIN_KEY, JWT_SECRET
from tests.torture.doors import Doors
from tests.torture.ledger import Ledger, now_ms

_AGAIN = frozenset({409, 429, 500, 502, 503, 504})
_IN_DOUBT_S = 90.0


class Callers:
    """Asks until it is answered."""

    def __init__(self, doors: Sequence[str], chance: random.Random, ledger: Ledger) -> None:
        self._doors = Doors(doors, chance, most=12, timeout_s=6)
        self._chance = chance
        self._ledger = ledger
        self._unanswered: dict[str, float] = {}

    def doubtful(self, path: str) -> bool:
        """Whether a request was sent there of late that may still be done: a frozen process wakes and goes on."""
        return time.monotonic() - self._unanswered.get(path, -_IN_DOUBT_S) < _IN_DOUBT_S

    async def close(self) -> None:
        await self._doors.close()

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        user: str | None = None,
        key: str | None = None,
        tries: int = 40,
    ) -> dict[str, Any] | None:
        """What was answered with 2xx; None when that did not come about."""
        headers = {"Authorization": f"Bearer {_token(user) if user else ADMIN_KEY}"}
        if key:
            headers["Idempotency-Key"] = key
        said = "nothing"
        for turn in range(tries):
            try:
                answer = await self._doors.request(method, path, json=body, headers=headers)
            except httpx.HTTPError as error:
                said = type(error).__name__
                if not isinstance(error, httpx.ConnectError):
                    self._unanswered[path] = time.monotonic()
            else:
                if answer.is_success:
                    return dict(answer.json()) if answer.content else {}
                said = f"{answer.status_code} {answer.text[:300]}"
                if answer.status_code == 500:
                    self._ledger.trouble.append(f"{method} {path} was answered 500")
                unknown_yet = answer.status_code == 404 and path.endswith(("/read", "/cancel"))
                if answer.status_code not in _AGAIN and not unknown_yet:
                    break
            await asyncio.sleep(min(2.0, 0.2 * 2**turn) * self._chance.uniform(0.5, 1))
        self._ledger.given_up.append(f"{now_ms()} {method} {path} {said}")
        words = f"{method} {path.split('/')[2]}: {said[:60]}"
        self._ledger.refused[words] = self._ledger.refused.get(words, 0) + 1
        return None


_tokens: dict[str, str] = {}


def _token(user: str) -> str:
    """A user's own token, good for a day, so that no clock that is wrong refuses it."""
    if user not in _tokens:
        _tokens[user] = jwt.encode({"sub": user, "exp": int(time.time()) + 86_400}, JWT_SECRET, "HS256")
    return _tokens[user]
