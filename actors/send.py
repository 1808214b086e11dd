"""send(channel): claims what this process can start now and carries it to the provider (design §5.5)."""

import asyncio
import time
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Final
from uuid import UUID

from loguru import logger

from tocsin.actors.claims import Claims
from tocsin.actors.messages import messages_for
from tocsin.actors.metrics import SendCounters
from tocsin.actors.outages import say
from tocsin.actors.outcomes import SendRules, not_configured, without_address
from tocsin.actors.pace import Pace
from tocsin.actors.provider_calls import MARGIN_S, ProviderCalls
from tocsin.actors.ready import Prepared, Ready
from tocsin.actors.recorder import Recorder
from tocsin.channels.contract import Sender
from tocsin.domain.breaker import Health
from tocsin.domain.delivery import Channel
from tocsin.domain.errors import RedisAway, RedisLost, SettingError, Unavailable
from tocsin.domain.event import Event
from tocsin.storage.flight_parts import Claim, Ending
from tocsin.storage.store import Store

_DATA_DELAY_MS: Final = 2_000
_GATHER_S: Final = 0.001
"""How long slots gather where sends end quickly: a beginning takes as long for eight as for one."""
_LEAST_S: Final = 1.0
"""How long the end of a lane may take in any case: to break off what is late, and to record what is known."""


class Lane:
    """One channel in one process: as many sends at once as its provider takes, none holding another. Where a provider
    is quick it claims ahead what will start within a tenth of a second; a claim begins when there is a slot for it."""

    def __init__(self, store: Store, sender: Sender, rules: SendRules, counters: SendCounters) -> None:
        if rules.lease_ms <= (sender.timeout_s + MARGIN_S) * 1000:
            raise SettingError(
                f"actors.lease: it must be {MARGIN_S:.0f} s longer than the time-out of {sender.provider}"
                f" ({sender.timeout_s:.0f} s), or a send would outlive its claim"
            )
        self.sender = sender
        self._store = store
        self._rules = rules
        self._recorder = Recorder(store)
        self._calls = ProviderCalls(store, sender, rules, counters, self._recorder, self._start)
        self._claims = Claims(store, sender, rules, self._start, self._run_again)
        self._pace = Pace(sender.concurrency)
        self._held = 0
        """How many are claimed, or being claimed, and have not ended."""
        self._busy = 0
        """How many of the provider's slots are taken."""
        self._ready = Ready(self._has_slot, self._let_go)
        """Claimed, and not begun for lack of a slot."""
        self._events: dict[UUID, Event] = {}
        self._changed = asyncio.Event()
        self._beginning: asyncio.Task[None] | None = None
        self._under_way: set[asyncio.Task[None]] = set()
        self._open = True

    @property
    def channel(self) -> Channel:
        return self.sender.channel

    async def run(self) -> None:
        """Claims and starts until nothing more may start."""
        had_tokens = False
        while self._open:
            room, claims = await self._room(), []
            claimed_s = time.monotonic()
            try:
                claims = await self._claims.take(room) if self._open else []
            finally:
                self._give_back(room - len(claims))
            if claims:
                had_tokens = False
                self._start(self._carry(claims, claimed_s))
            elif had_tokens or not await self._claims.has_tokens():
                return
            else:
                had_tokens = True

    async def close(self, limit_s: float) -> None:
        """Takes nothing new and waits for what is under way, at most `limit_s` seconds. What is not done by then is
        broken off: others find its lease ended, and its outcome unknown."""
        self._open = False
        self._claims.close()
        self._changed.set()  # a run that waits for room sees that it is to end
        self._let_go(self._ready.clear())
        deadline_s = time.monotonic() + limit_s
        await self._ended(deadline_s)
        await self._break_off()
        await self._recorder.close(max(_LEAST_S, deadline_s - time.monotonic()))
        self._calls.close()
        await self.sender.close()

    async def _ended(self, deadline_s: float) -> None:
        """Waits until nothing is under way. That may start more: a claim that has begun starts its sends."""
        while self._under_way and (left_s := deadline_s - time.monotonic()) > 0:
            await asyncio.wait(self._under_way, timeout=left_s)

    async def _break_off(self) -> None:
        """Cancels each once, for a second time would interrupt its end; what that end starts has a moment too."""
        late, calls = set(self._under_way), self._calls.under_way
        for task in late:
            task.cancel()
        if calls:
            logger.warning("{} sends on {} were broken off; they will show as uncertain", calls, self.channel)
        await self._ended(time.monotonic() + _LEAST_S)
        for task in self._under_way - late:
            task.cancel()

    async def _run_again(self) -> None:
        try:
            await self.run()
        except Exception:
            logger.exception("claiming {} failed; what was claimed waits for its lease's end", self.channel)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    # Room: how many may be claimed.

    async def _room(self) -> int:
        """Waits until something may be claimed; what is answered counts as held."""
        while self._open and not self._may_claim():
            self._changed.clear()
            await self._changed.wait()
        room = self._may_claim()
        self._held += room
        return room

    def _may_claim(self) -> int:
        # Tokens of a rate are taken with the claim: what waited on would begin with those of later ones.
        size = self.sender.concurrency + (0 if self._claims.rate else self._pace.ahead)
        room = size - self._held
        # Half of it at a time, unless a slot would be empty.
        return room if room > 0 and (2 * room >= size or not self._ready) else 0

    def _give_back(self, count: int) -> None:
        if count:
            self._held -= count
            self._changed.set()

    # From claims to messages.

    async def _carry(self, claims: Sequence[Claim], claimed_s: float) -> None:
        kept = 0
        try:
            prepared = await self._prepared(claims, claimed_s)
            kept = len(prepared)
            self._ready.add(prepared)
            self._fill_slots()
        except Unavailable as error:
            say(f"sending {self.channel}", error)
            await self._claims.hand_back(claims, _DATA_DELAY_MS)
        except Exception:
            logger.exception("what was claimed on {} could not be sent; it waits for its lease's end", self.channel)
        finally:
            self._give_back(len(claims) - kept)

    async def _prepared(self, claims: Sequence[Claim], claimed_s: float) -> list[Prepared]:
        """The messages that can be sent; what cannot be is recorded, what lacks data is handed back."""
        if not self.sender.configured:
            self._end_unsent(not_configured(claim) for claim in claims)
            return []
        found = await messages_for(self._store, claims, self._events)
        self._end_unsent(without_address(claim) for claim, message in found.items() if message is None)
        await self._claims.release([claim for claim in claims if claim not in found], _DATA_DELAY_MS)
        return [Prepared(claim, message, claimed_s) for claim, message in found.items() if message is not None]

    def _end_unsent(self, endings: Iterable[Ending]) -> None:
        for ending in endings:
            self._calls.end_unsent(ending)

    def _let_go(self, claims: Sequence[Claim]) -> None:
        """Gives to others what is ready no more, and claims nothing ahead for now."""
        self._pace.forget()
        if claims:
            self._start(self._claims.hand_back(claims))
            self._give_back(len(claims))

    # From messages to sends.

    def _has_slot(self) -> bool:
        return self._busy < self.sender.concurrency

    def _fill_slots(self) -> None:
        if self._ready and self._has_slot() and (not self._beginning or self._beginning.done()):
            self._beginning = self._start(self._begin_ready())

    async def _begin_ready(self) -> None:
        """While one beginning is under way more slots become free; the next takes all that are by then."""
        while self._ready and self._has_slot():
            if self._pace.is_quick and 2 * self._busy > self.sender.concurrency:
                await asyncio.sleep(_GATHER_S)
            batch = self._take_ready()
            if not batch:
                return  # let go of meanwhile
            self._busy += len(batch)
            begun: list[Prepared] = []
            try:
                began_s = time.monotonic()  # the lease counts from within
                begun = await self._begun(batch)
                for prepared in begun:
                    self._start(self._send_in_slot(prepared, began_s))
            except Unavailable as error:
                say(f"sending {self.channel}", error)
                await self._claims.hand_back((prepared.claim for prepared in batch), _DATA_DELAY_MS)
            except Exception:
                logger.exception("what was claimed on {} could not be sent; it waits for its lease's end", self.channel)
            finally:
                self._busy -= len(batch) - len(begun)
                self._give_back(len(batch) - len(begun))

    def _take_ready(self) -> list[Prepared]:
        batch = self._ready.take(self.sender.concurrency - self._busy)
        if not self._ready:
            self._changed.set()
        return batch

    async def _begun(self, batch: Sequence[Prepared]) -> list[Prepared]:
        claims = [prepared.claim for prepared in batch]
        if not self._open:
            await self._claims.hand_back(claims)
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
            await self._claims.hand_back(claims)
            return []
        # What was read or withdrawn meanwhile is not sent; as a trial of a provider it gives way to another.
        refused = [claim for claim, may in zip(claims, begun, strict=True) if not may]
        if refused:
            self._start(self._claims.hand_back(refused))
        return [prepared for prepared, may in zip(batch, begun, strict=True) if may]

    async def _send_in_slot(self, prepared: Prepared, began_s: float) -> None:
        try:
            if await self._calls.make(prepared.claim, prepared.message, began_s) is Health.DOWN:
                self._let_go(self._ready.clear())
        finally:
            self._pace.note()
            self._busy -= 1
            self._give_back(1)
            self._fill_slots()
