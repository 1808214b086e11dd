"""Attempts: a delivery is claimed, begun, and its outcome recorded, each by one script (docs/adr/0001, 0002)."""

import json
from collections.abc import Sequence
from uuid import UUID

from tocsin.domain.breaker import NEVER, BreakerRules
from tocsin.domain.delivery import Channel, Fact, Reason
from tocsin.domain.rate import Rate
from tocsin.storage import testimony
from tocsin.storage.breakers import name_of, say_changes
from tocsin.storage.flight_parts import Claim, Ending
from tocsin.storage.rates import limit_of
from tocsin.storage.scripts import MOST_ITEMS, Scripts


class Attempts:
    """The scripts by name, with their arguments and answers in our own types. All raise RedisAway."""

    def __init__(self, scripts: Scripts, rules: BreakerRules = NEVER) -> None:
        self._scripts = scripts
        self._rules = rules

    async def claim(
        self,
        channel: Channel,
        token: str,
        most: int,
        *,
        lease_ms: int,
        attempts: int,
        resend: bool,
        provider: str = "",
        rate: Rate | None = None,
    ) -> list[Claim]:
        """Claims up to `most` deliveries that may start now; fewer or none while `provider` rests or comes back, or by
        its `rate`."""
        answer = await self._scripts.run(
            "claim",
            channel,
            token,
            min(most, MOST_ITEMS),
            lease_ms,
            attempts,
            "1" if resend else "0",
            name_of(self._rules, channel, provider),
            limit_of(channel, provider, rate),
        )
        life = self._scripts.life
        life.remember(*testimony.lost(channel, answer, life.now_ms()))
        return [_claim_of(text, channel, token, provider) for text in answer]

    async def begin(self, claims: Sequence[Claim], token: str, *, lease_ms: int, detail: Fact) -> list[bool]:
        """Says that the provider calls begin; False for what must not be sent any more."""
        arguments = [part for claim in claims for part in (claim.notification, claim.step, claim.attempt)]
        life = self._scripts.life
        with life.under_way():
            answer = await self._scripts.run_telling("begin", token, lease_ms, json.dumps(detail), *arguments)
            begun = [_call(claim) for claim, text in zip(claims, answer, strict=True) if text == "1"]
            life.remember(testimony.began(begun, detail, life.now_ms()))
        return [text == "1" for text in answer]

    async def record(self, endings: Sequence[Ending]) -> list[bool]:
        """Records how attempts ended, and what they say of their providers; True for what will be tried again."""
        rules = self._rules
        arguments: list[object] = [rules.failures, rules.rest_ms, rules.cap_ms, rules.successes]
        for ending in endings:
            claim = ending.claim
            delay = "" if ending.retry_in_ms is None else ending.retry_in_ms
            arguments += [claim.token, claim.notification, claim.step, claim.channel, claim.attempt, ending.status]
            arguments += [json.dumps(ending.detail), delay, ending.retry_reason or Reason.INTERNAL]
            arguments += [name_of(self._rules, claim.channel, claim.provider), ending.health, ending.asked_ms]
        answer = await self._scripts.run_telling("record", *arguments)
        say_changes(answer[len(endings) :])
        again = [text == "1" for text in answer[: len(endings)]]
        self._remember_endings(endings, again)
        return again

    async def release(
        self, claims: Sequence[Claim], token: str, *, delay_ms: int = 0, rate: Rate | None = None
    ) -> None:
        """Hands back claims of which no provider was called, and what they took of its `rate`."""
        if claims:
            arguments = [part for claim in claims for part in (claim.notification, claim.step)]
            channel, provider = claims[0].channel, claims[0].provider
            given = (name_of(self._rules, channel, provider), limit_of(channel, provider, rate))
            await self._scripts.run("release", token, delay_ms, *given, *arguments)

    async def end_leases(
        self, channel: Channel, steps: Sequence[tuple[UUID, int]], *, attempts: int, resend: bool
    ) -> None:
        """Ends those leases of `steps` (notification and number, at most 100) that ran out while the provider was
        called, where nobody claims what they left: what became of them is unknown."""
        arguments = [part for step in steps for part in step]
        answer = await self._scripts.run("end_leases", attempts, "1" if resend else "0", *arguments)
        life = self._scripts.life
        life.remember(*testimony.lost(channel, answer, life.now_ms()))

    def _remember_endings(self, endings: Sequence[Ending], again: Sequence[bool]) -> None:
        life = self._scripts.life
        now_ms = life.now_ms()
        for ending, tried_again in zip(endings, again, strict=True):
            call = _call(ending.claim)
            life.remember(testimony.ended(call, ending.status, ending.detail, now_ms))
            if tried_again and ending.retry_in_ms is not None:
                following = (*call[:3], call[3] + 1)
                reason = ending.retry_reason or Reason.INTERNAL
                life.remember(testimony.waits(following, reason, now_ms + ending.retry_in_ms, now_ms))


def _call(claim: Claim) -> tuple[UUID, int, str, int]:
    return claim.notification, claim.step, claim.channel, claim.attempt


def _claim_of(text: str, channel: Channel, token: str, provider: str) -> Claim:
    notification, step, attempt, user, event, _ = text.split("|")
    return Claim(UUID(notification), int(step), int(attempt), user, UUID(event), channel, token, provider)
