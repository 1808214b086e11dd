"""One attempt at a provider: the call, what its outcome means, and the word about it."""

import asyncio
import random
import time
from dataclasses import replace
from typing import Final

from loguru import logger

from tocsin.actors.claims import Start
from tocsin.actors.metrics import SendCounters
from tocsin.actors.outcomes import SendRules, ending_of
from tocsin.actors.recorder import Recorder
from tocsin.actors.sent_lines import SentLines
from tocsin.channels.contract import Message, Outcome, OutcomeKind, Sender
from tocsin.domain.breaker import Health
from tocsin.domain.delivery import Reason
from tocsin.storage.calls import correlation
from tocsin.storage.flight_parts import Claim, Ending
from tocsin.storage.store import Store

MARGIN_S: Final = 2.0
"""What must be left of a lease beside the provider's time-out when a call begins."""
_TOO_LATE: Final = Outcome(OutcomeKind.TEMPORARY, Reason.LEASE_LOST, message="not sent: the lease would not outlast it")


class ProviderCalls:
    """Carries out what has begun, on one event loop. `under_way` counts calls; `start` runs work that the lane's end
    waits for."""

    def __init__(
        self,
        store: Store,
        sender: Sender,
        rules: SendRules,
        counters: SendCounters,
        recorder: Recorder,
        start: Start,
    ) -> None:
        self.under_way = 0
        self._start = start
        self._store = store
        self._sender = sender
        self._rules = rules
        self._counters = counters
        self._recorder = recorder
        self._lines = SentLines(sender.channel)

    async def make(self, claim: Claim, message: Message, began_s: float) -> Health:
        """One attempt, from its call until its outcome is on its way to Redis; one that speaks against its provider
        until it is recorded. Nothing takes its place before the breaker knows: a provider that refuses at once would be
        offered hundreds in the time that gathering outcomes takes."""
        correlation.set(message.cid)
        called_s = time.monotonic()
        outcome = await self._call(message, began_s)
        took_s = time.monotonic() - called_s
        ending = self.ending(claim, outcome)
        if ending.health is Health.DOWN and took_s > self._sender.timeout_s + MARGIN_S:
            # This process was frozen, or had no time: that no answer was heard says nothing of the provider.
            ending = replace(ending, health=Health.UNSAID)
        recorded = self._recorder.add(ending)
        self._counters.ended(self._sender.channel, self._sender.provider, ending.status, outcome.reason, took_s)
        self._lines.say(ending, message.cid)
        if outcome.dead_tokens:
            self._start(self._store.drop_tokens(claim.user, outcome.dead_tokens))
        if ending.health is Health.DOWN:
            await recorded
        return ending.health

    def end_unsent(self, ending: Ending) -> None:
        """Records what ends without a call of the provider."""
        self._recorder.add(ending)
        reason: Reason | None = ending.detail.get("reason")
        self._counters.not_sent(self._sender.channel, self._sender.provider, ending.status, reason)
        self._lines.say(ending, correlation.get())

    def ending(self, claim: Claim, outcome: Outcome) -> Ending:
        """What an outcome means for its delivery."""
        chance = random.random()  # noqa: S311  # jitter, not a secret
        return ending_of(claim, outcome, self._sender.provider, self._rules, chance=chance)

    def close(self) -> None:
        """Says what is still to be said."""
        self._lines.flush()

    async def _call(self, message: Message, began_s: float) -> Outcome:
        # A process that was frozen after its claim began finds its lease gone: another may be sending by now.
        if time.monotonic() - began_s > self._rules.lease_ms / 1000 - self._sender.timeout_s - MARGIN_S:
            return _TOO_LATE
        self.under_way += 1
        try:
            async with asyncio.timeout(self._sender.timeout_s + MARGIN_S / 2):
                return await self._sender.send(message)
        except TimeoutError:
            return Outcome(OutcomeKind.UNKNOWN, Reason.TIMEOUT, message="no answer within the time-out")
        except Exception as error:
            logger.exception("{} raised", self._sender.provider)
            return Outcome(OutcomeKind.UNKNOWN, Reason.INTERNAL, message=type(error).__name__)
        finally:
            self.under_way -= 1
