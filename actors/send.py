"""send(channel): claims what this process can start now and carries it to the provider (design §5.5)."""

import asyncio
import random
import time
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

from loguru import logger

from tocsin.actors.messages import messages_for
from tocsin.actors.metrics import SendCounters
from tocsin.actors.outages import say
from tocsin.actors.outcomes import SendRules, ending_of, not_configured, without_address
from tocsin.actors.recorder import Recorder
from tocsin.channels.contract import Message, Outcome, OutcomeKind, Sender, rate_of
from tocsin.domain import ids
from tocsin.domain.breaker import Health
from tocsin.domain.delivery import Channel, Reason
from tocsin.domain.errors import RedisAway, RedisLost, SettingError, Unavailable
from tocsin.storage.calls import correlation
from tocsin.storage.flight_parts import Claim, Ending
from tocsin.storage.memory import Work
from tocsin.storage.store import Store

_MARGIN_S = 2.0
"""What must be left of a lease beside the provider's time-out when a call begins."""
_DATA_DELAY_MS = 2_000
_AWAY_S = 0.5
_SOON_MS = 1_000
"""Up to when a lane waits itself for its provider's next token; later ones the look at what is due calls for."""
_LEAST_S = 1.0
"""How long the end of a lane may take in any case: to break off what is late, and to record what is known."""
_NOT_BEGUN = Outcome(OutcomeKind.TEMPORARY, Reason.LEASE_LOST, message="not sent: Redis went away as it began")


class Lane:
    """One channel in one process: as many sends at once as its provider takes, none holding another."""

    def __init__(self, store: Store, sender: Sender, rules: SendRules, counters: SendCounters) -> None:
        if rules.lease_ms <= (sender.timeout_s + _MARGIN_S) * 1000:
            raise SettingError(
                f"actors.lease: it must be {_MARGIN_S:.0f} s longer than the time-out of {sender.provider}"
                f" ({sender.timeout_s:.0f} s), or a send would outlive its claim"
            )
        self.sender = sender
        self._store = store
        self._rules = rules
        self._counters = counters
        self._recorder = Recorder(store)
        self._rate = rate_of(sender)
        self._free = sender.concurrency
        self._slot = asyncio.Condition()
        self._under_way: set[asyncio.Task[None]] = set()
        self._calls = 0
        """How many calls of the provider are under way."""
        self._unanswered: list[str] = []
        """The tokens of claims of which nobody knows what they took: the same token gets the same answer."""
        self._asking: asyncio.Task[None] | None = None
        self._coming_back: asyncio.TimerHandle | None = None
        """Runs when the provider may be given more."""
        self._open = True

    @property
    def channel(self) -> Channel:
        return self.sender.channel

    async def run(self) -> None:
        """Claims and starts until nothing more may start."""
        had_tokens = False
        while self._open:
            room, claims = await self._room(), []
            try:
                claims = await self._claim(room) if self._open else []
            finally:
                await self._give_back(room - len(claims))
            if not claims:
                if had_tokens or not await self._has_tokens():
                    return
                had_tokens = True
                continue
            had_tokens = False
            if not self._open:
                await self._hand_back(claims)
                return
            self._start(self._carry(claims))

    async def close(self, limit_s: float) -> None:
        """Takes nothing new and waits for what is under way, at most `limit_s` seconds. What is not done by then is
        broken off: others find its lease ended, and its outcome unknown."""
        self._open = False
        if self._coming_back:
            self._coming_back.cancel()
        await self._give_back(0)  # a run that waits for room sees that it is to end
        deadline_s = time.monotonic() + limit_s
        # What is under way may start more: a claim that has begun starts its sends.
        while self._under_way and (left_s := deadline_s - time.monotonic()) > 0:
            await asyncio.wait(self._under_way, timeout=left_s)
        await self._break_off()
        await self._recorder.close(max(_LEAST_S, deadline_s - time.monotonic()))
        await self.sender.close()

    async def _break_off(self) -> None:
        late, calls = set(self._under_way), self._calls
        for task in late:
            task.cancel()
        if calls:
            logger.warning("{} sends on {} were broken off; they will show as uncertain", calls, self.channel)
        if late:
            await asyncio.wait(late, timeout=_LEAST_S)

    async def _room(self) -> int:
        async with self._slot:
            await self._slot.wait_for(lambda: self._free > 0 or not self._open)
            room, self._free = self._free, 0
            return room

    async def _give_back(self, slots: int) -> None:
        async with self._slot:
            self._free += slots
            self._slot.notify_all()

    async def _claim(self, most: int) -> list[Claim]:
        try:
            await self._store.memory.check(Work.SEND)
        except Unavailable as error:
            say(f"claiming {self.channel}", error)
            return []
        # Taken off the list, so that no two runs carry the same claims.
        token = self._unanswered.pop() if self._unanswered else uuid4().hex
        try:
            claims = await self._store.attempts.claim(
                self.channel,
                token,
                most,
                lease_ms=self._rules.lease_ms,
                attempts=self._rules.retry.attempts,
                resend=self._rules.resend_unknown,
                provider=self.sender.provider,
                rate=self._rate,
            )
        except Unavailable as error:
            say(f"claiming {self.channel}", error)
            if not isinstance(error, RedisLost):
                self._unanswered.append(token)
                self._see_to_unanswered()
            return []
        if beyond := claims[most:]:
            # A claim whose answer was lost was made when there was more room. Sends beyond it would wait for a
            # connection within their time-out, and count as sent by nobody knows whom.
            self._start(self._hand_back(beyond))
        return claims[:most]

    async def _has_tokens(self) -> bool:
        """Whether the provider may be given more by its rate, if it has one. Where it may not, this lane comes back as
        soon as it may."""
        if self._rate is None:
            return False
        try:
            (bucket,) = await self._store.rates.buckets([(self.channel, self.sender.provider, self._rate)])
        except Unavailable:
            return False
        if 0 < bucket.wait_ms <= _SOON_MS and self._open and self._coming_back is None:
            loop = asyncio.get_running_loop()
            self._coming_back = loop.call_later(bucket.wait_ms / 1000, self._come_back)
        return bucket.tokens > 0

    def _come_back(self) -> None:
        self._coming_back = None
        self._start(self._run_again())

    async def _run_again(self) -> None:
        try:
            await self.run()
        except Exception:
            logger.exception("claiming {} failed; what was claimed waits for its lease's end", self.channel)

    def _see_to_unanswered(self) -> None:
        if self._asking is None or self._asking.done():
            self._asking = self._start(self._ask_again())

    async def _ask_again(self) -> None:
        try:
            while self._unanswered and self._open:
                await asyncio.sleep(_AWAY_S)
                await self.run()
        except Exception:
            logger.exception("claiming {} failed; what was claimed waits for its lease's end", self.channel)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    async def _carry(self, claims: Sequence[Claim]) -> None:
        started = 0
        try:
            messages = await self._ready_messages(claims)
            began = time.monotonic()
            for claim, message in await self._begun(messages):
                started += 1
                self._start(self._send_in_slot(claim, message, began))
        except Unavailable as error:
            say(f"sending {self.channel}", error)
            await self._hand_back(claims, _DATA_DELAY_MS)
        except Exception:
            logger.exception("what was claimed on {} could not be sent; it waits for its lease's end", self.channel)
        finally:
            await self._give_back(len(claims) - started)

    async def _ready_messages(self, claims: Sequence[Claim]) -> list[tuple[Claim, Message]]:
        """The messages that can be sent; what cannot be is recorded, what lacks data is handed back."""
        if not self.sender.configured:
            await self._record_all(not_configured(claim) for claim in claims)
            return []
        prepared = await messages_for(self._store, claims)
        await self._record_all(without_address(claim) for claim, message in prepared.items() if message is None)
        missing = [claim for claim in claims if claim not in prepared]
        if missing:
            await self._store.attempts.release(missing, missing[0].token, delay_ms=_DATA_DELAY_MS, rate=self._rate)
        return [(claim, message) for claim, message in prepared.items() if message is not None]

    async def _record_all(self, endings: Iterable[Ending]) -> None:
        for ending in endings:
            self._recorder.add(ending)
            reason: Reason | None = ending.detail.get("reason")
            self._counters.not_sent(self.channel, self.sender.provider, ending.status, reason)
            self._say(ending)

    async def _begun(self, messages: Sequence[tuple[Claim, Message]]) -> list[tuple[Claim, Message]]:
        if not messages:
            return []
        claims = [claim for claim, _ in messages]
        if not self._open:
            await self._hand_back(claims)
            return []
        detail = {"provider": self.sender.provider, "attempts": self._rules.retry.attempts}
        try:
            begun = await self._store.attempts.begin(
                claims, claims[0].token, lease_ms=self._rules.lease_ms, detail=detail
            )
        except RedisLost as error:
            # What was claimed is put back into motion as it was before.
            say(f"sending {self.channel}", error)
            return []
        except RedisAway as error:
            # They may count as begun. Left to their lease's end they would be uncertain; that none was sent is known.
            say(f"sending {self.channel}", error)
            await self._record_all(self._ending(claim, _NOT_BEGUN) for claim in claims)
            return []
        # What was read or withdrawn meanwhile is not sent; as a trial of a provider it gives way to another.
        refused = [claim for claim, may in zip(claims, begun, strict=True) if not may]
        if refused:
            self._start(self._hand_back(refused))
        return [pair for pair, may in zip(messages, begun, strict=True) if may]

    async def _hand_back(self, claims: Sequence[Claim], delay_ms: int = 0) -> None:
        """Tries for as long as the claims last: what is not handed back waits for their end."""
        end_s = time.monotonic() + self._rules.lease_ms / 1000
        while claims and time.monotonic() < end_s:
            try:
                await self._store.attempts.release(claims, claims[0].token, delay_ms=delay_ms, rate=self._rate)
            except Unavailable as error:
                say(f"handing back {self.channel}", error)
            else:
                return
            if not self._open:
                return
            await asyncio.sleep(_AWAY_S)

    def _ending(self, claim: Claim, outcome: Outcome) -> Ending:
        chance = random.random()  # noqa: S311  # jitter, not a secret
        return ending_of(claim, outcome, self.sender.provider, self._rules, chance=chance)

    async def _send_in_slot(self, claim: Claim, message: Message, began: float) -> None:
        correlation.set(message.cid)
        called = time.monotonic()
        try:
            outcome = await self._send(message, began)
            took_s = time.monotonic() - called
            ending = self._ending(claim, outcome)
            if ending.health is Health.DOWN and took_s > self.sender.timeout_s + _MARGIN_S:
                # This process was frozen, or had no time: that no answer was heard says nothing of the provider.
                ending = replace(ending, health=Health.UNSAID)
            recorded = self._recorder.add(ending)
            if ending.health is Health.DOWN:
                # Nothing takes its place before the breaker knows: a provider that refuses at once would be offered
                # hundreds in the time that gathering outcomes takes.
                await recorded
        finally:
            await self._give_back(1)
        self._counters.ended(self.channel, self.sender.provider, ending.status, outcome.reason, took_s)
        self._say(ending)
        if outcome.dead_tokens:
            await self._store.drop_tokens(claim.user, outcome.dead_tokens)

    def _say(self, ending: Ending) -> None:
        claim, reason = ending.claim, ending.detail.get("reason")
        logger.info(
            "{} {} step {} attempt {}: {}{}",
            self.channel, ids.delivery_id(claim.notification, claim.step, claim.channel), claim.step, claim.attempt,
            ending.status, f" ({reason})" if reason else "",
        )  # fmt: skip

    async def _send(self, message: Message, began: float) -> Outcome:
        # A process that was frozen after its claim began finds its lease gone: another may be sending by now.
        if time.monotonic() - began > self._rules.lease_ms / 1000 - self.sender.timeout_s - _MARGIN_S:
            return Outcome(OutcomeKind.TEMPORARY, Reason.LEASE_LOST, message="not sent: the lease would not outlast it")
        self._calls += 1
        try:
            return await asyncio.wait_for(self.sender.send(message), self.sender.timeout_s + _MARGIN_S / 2)
        except TimeoutError:
            return Outcome(OutcomeKind.UNKNOWN, Reason.TIMEOUT, message="no answer within the time-out")
        except Exception as error:
            logger.exception("{} raised", self.sender.provider)
            return Outcome(OutcomeKind.UNKNOWN, Reason.INTERNAL, message=type(error).__name__)
        finally:
            self._calls -= 1
