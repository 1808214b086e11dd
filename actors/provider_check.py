"""Reconciliation with the providers: messages that are there twice, receipts that never came, outcomes nobody knows."""

from collections.abc import Mapping
from typing import Final

from tocsin.actors.look_up import look_up
from tocsin.actors.rounds import Round
from tocsin.channels.contract import Sender
from tocsin.domain.delivery import Channel
from tocsin.storage import provider_ledger

_CURSOR: Final = "callbacks"
_FIRST_LOOK_MS: Final = 86_400_000
_ASKED_AT_ONCE: Final = 25
_UNDER_WAY_MS: Final = 5_000
"""How long a callback may be on its way from its receipt to the journal."""


async def check_providers(round_: Round, senders: Mapping[Channel, Sender]) -> None:
    """Counts by provider; those of `senders` that can be asked are asked about what is in doubt."""
    await _count_duplicates(round_)
    await _count_doubts(round_, senders)


async def _count_duplicates(round_: Round) -> None:
    until_ms = await round_.store.flights.now_ms() - _UNDER_WAY_MS
    since_ms = int(round_.place.cursors.get(_CURSOR, until_ms - _FIRST_LOOK_MS))
    if until_ms <= since_ms or not await round_.caught_up():
        return
    for found in await round_.store.postgres.call(provider_ledger.duplicates, since_ms, until_ms):
        round_.found("duplicates", found.event, count=found.count)
        round_.of_provider(found.provider, "duplicates", found.count)
    round_.place.cursors[_CURSOR] = str(until_ms)


async def _count_doubts(round_: Round, senders: Mapping[Channel, Sender]) -> None:
    unconfirmed, uncertain = await _doubts(round_)
    left = unconfirmed, uncertain
    if round_.mend and senders and (unconfirmed or uncertain) and await _ask(round_, senders):
        await round_.caught_up()
        left = await _doubts(round_)
    round_.counted("receipts", unconfirmed, left[0])
    round_.counted("uncertain", uncertain, left[1])


async def _doubts(round_: Round) -> tuple[dict[str, int], dict[str, int]]:
    rules, postgres = round_.store.settings.uncertain, round_.store.postgres
    unconfirmed = await postgres.call(provider_ledger.unconfirmed, rules.receipt_after, rules.give_up_after)
    return unconfirmed, await postgres.call(provider_ledger.uncertain)


async def _ask(round_: Round, senders: Mapping[Channel, Sender]) -> bool:
    """Asks while there is time; True when something was settled."""
    settled = False
    while not round_.is_over():
        counts = await look_up(round_.store, senders, _ASKED_AT_ONCE)
        if counts is None or not counts.asked or counts.unanswered:
            break
        settled = settled or counts.settled > 0
    return settled
