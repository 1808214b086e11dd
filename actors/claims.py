"""What a lane asks Redis for and hands back: claims, whose answers may be lost, and the tokens of a provider's rate."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from itertools import groupby
from typing import Any, Final
from uuid import uuid4

from tocsin.actors.outages import say
from tocsin.actors.outcomes import SendRules
from tocsin.channels.contract import Sender, rate_of
from tocsin.domain.errors import RedisLost, Unavailable
from tocsin.storage.flight_parts import Claim
from tocsin.storage.memory import Work
from tocsin.storage.store import Store

_AWAY_S = 0.5
_SOON_MS: Final = 1_000
"""Up to when a lane waits itself for its provider's next token; later ones the look at what is due calls for."""
_TOGETHER_MS: Final = 10
"""How long tokens gather at least: a claim for each would cost more than what it sends."""

Start = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class Claims:
    """The claims of one lane. `start` runs work that its end waits for; `run_again` has it claim once more."""

    def __init__(
        self,
        store: Store,
        sender: Sender,
        rules: SendRules,
        start: Start,
        run_again: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self.rate = rate_of(sender)
        self._store = store
        self._sender = sender
        self._rules = rules
        self._start = start
        self._run_again = run_again
        self._unanswered: list[str] = []
        """The tokens of claims of which nobody knows what they took: the same token gets the same answer."""
        self._asking: asyncio.Task[None] | None = None
        self._coming_back: asyncio.TimerHandle | None = None
        """Runs when the provider may be given more."""
        self._open = True

    def close(self) -> None:
        """Asks for nothing more; what is handed back from now on is tried once."""
        self._open = False
        if self._coming_back:
            self._coming_back.cancel()

    async def take(self, most: int) -> list[Claim]:
        """Up to `most` that may start now; none while Redis cannot say."""
        channel = self._sender.channel
        try:
            await self._store.memory.check(Work.SEND)
        except Unavailable as error:
            say(f"claiming {channel}", error)
            return []
        # Taken off the list, so that no two runs carry the same claims.
        token = self._unanswered.pop() if self._unanswered else uuid4().hex
        try:
            claims = await self._store.attempts.claim(
                channel,
                token,
                most,
                lease_ms=self._rules.lease_ms,
                attempts=self._rules.retry.attempts,
                resend=self._rules.resend_unknown,
                provider=self._sender.provider,
                rate=self.rate,
            )
        except Unavailable as error:
            say(f"claiming {channel}", error)
            if not isinstance(error, RedisLost):
                self._unanswered.append(token)
                self._see_to_unanswered()
            return []
        if beyond := claims[most:]:
            # A claim whose answer was lost was made when there was more room. Sends beyond it would wait for a
            # connection within their time-out, and count as sent by nobody knows whom.
            self._start(self.hand_back(beyond))
        return claims[:most]

    async def has_tokens(self) -> bool:
        """Whether the provider may be given more by its rate, if it has one. Where it may not, its lane runs again as
        soon as it may."""
        if self.rate is None:
            return False
        try:
            (bucket,) = await self._store.rates.buckets([(self._sender.channel, self._sender.provider, self.rate)])
        except Unavailable:
            return False
        if 0 < bucket.wait_ms <= _SOON_MS and self._open and self._coming_back is None:
            wait_s = max(bucket.wait_ms, _TOGETHER_MS) / 1000
            self._coming_back = asyncio.get_running_loop().call_later(wait_s, self._come_back)
        return bucket.tokens > 0

    async def hand_back(self, claims: Iterable[Claim], delay_ms: int = 0) -> None:
        """Gives up claims of which no provider was called, whether or not they count as begun. Tries for as long as
        they last: what is not handed back waits for their end."""
        end_s = time.monotonic() + self._rules.lease_ms / 1000
        for _, alike in groupby(claims, key=lambda claim: claim.token):
            await self._hand_back(list(alike), delay_ms, end_s)

    async def release(self, claims: Sequence[Claim], delay_ms: int) -> None:
        """Hands back claims of one token. Raises Unavailable."""
        if claims:
            await self._store.attempts.release(claims, claims[0].token, delay_ms=delay_ms, rate=self.rate)

    async def _hand_back(self, claims: Sequence[Claim], delay_ms: int, end_s: float) -> None:
        while time.monotonic() < end_s:
            try:
                await self.release(claims, delay_ms)
            except Unavailable as error:
                say(f"handing back {self._sender.channel}", error)
            else:
                return
            if not self._open:
                return
            await asyncio.sleep(_AWAY_S)

    def _come_back(self) -> None:
        self._coming_back = None
        self._start(self._run_again())

    def _see_to_unanswered(self) -> None:
        if self._asking is None or self._asking.done():
            self._asking = self._start(self._ask_again())

    async def _ask_again(self) -> None:
        while self._unanswered and self._open:
            await asyncio.sleep(_AWAY_S)
            await self._run_again()
