"""Providers are asked what became of deliveries in doubt: those that are UNCERTAIN, and those whose receipt never came.

What is found is a fact with its method and confidence (T7, R8). What is not found, found twice, or found with too
little confidence stays in doubt for a person (`tocsin settle`); that it was asked is kept, and it is asked again later,
each time after a longer wait.

`look_up(store, senders, limit)` is called by the clock (jobs.py) and by reconciliation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Final

from loguru import logger

from tocsin.actors.messages import messages_for
from tocsin.actors.questions import Question, claim_of, judged, provider_id_of, rival_windows, telling
from tocsin.channels.contract import Askable, Known, Sender
from tocsin.domain.correlation import SLACK_MS
from tocsin.domain.delivery import Channel, standings
from tocsin.domain.errors import ProviderAway
from tocsin.storage import look_ups
from tocsin.storage.look_ups import Doubt, LookUp, Result
from tocsin.storage.scripts import MOST_ITEMS
from tocsin.storage.store import Store

_MOST_UNANSWERED: Final = 3
"""A provider that gives no answer so often in a run is left alone until the next."""
_DRAINED_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class LookUpCounts:
    """What a run found: of `asked` attempts those `settled`, those `unconfirmed` (the provider has it, and knows no
    more), `not_found`, `tied` and found with `low` confidence; and those of which it did not answer."""

    asked: int = 0
    settled: int = 0
    unconfirmed: int = 0
    not_found: int = 0
    tied: int = 0
    low: int = 0
    unanswered: int = 0

    def __add__(self, other: "LookUpCounts") -> "LookUpCounts":
        return LookUpCounts(*map(sum, zip(astuple(self), astuple(other), strict=True)))


async def look_up(store: Store, senders: Mapping[Channel, Sender], limit: int) -> LookUpCounts | None:
    """Asks about up to `limit` deliveries that are due to be asked about. None when another process is at it, or no
    channel can be asked. Raises RedisAway and PostgresAway."""
    askable = {channel: sender for channel, sender in senders.items() if isinstance(sender, Askable)}
    if not askable:
        return None
    async with store.lock("look_up") as mine:
        if not mine:
            return None
        providers = {channel: senders[channel].provider for channel in askable}
        receipts = [channel for channel, sender in askable.items() if sender.gives_receipts]
        rules = store.settings.uncertain
        doubts = await store.postgres.call(look_ups.due, rules, list(providers.items()), receipts, limit)
        counts = LookUpCounts()
        for first in range(0, len(doubts), MOST_ITEMS):
            counts += await _look_up(store, doubts[first : first + MOST_ITEMS], askable, providers)
    if counts.asked:
        logger.info("providers were asked about {} attempts: {}", counts.asked, counts)
    return counts


async def _look_up(
    store: Store, doubts: Sequence[Doubt], askable: Mapping[Channel, Askable], providers: Mapping[Channel, str]
) -> LookUpCounts:
    questions, unasked = await _questions(store, doubts, providers)
    answered = await _ask(questions, askable)
    counts = await _settle(store, answered)
    if unasked:
        await store.postgres.call(look_ups.keep, [each.answer(Result.NOT_ASKED) for each in unasked])
    return replace(counts, asked=len(questions), unanswered=len(questions) - len(answered))


async def _questions(
    store: Store, doubts: Sequence[Doubt], providers: Mapping[Channel, str]
) -> tuple[list[Question], list[Question]]:
    """What can be asked, and what cannot: what it said, or to whom, is not known any more."""
    found = [
        Question(doubt, attempt, providers[Channel(doubt.channel)], provider_id_of(doubt, attempt), None)
        for doubt in doubts
        for attempt, status in sorted(standings(doubt.history).items())
        if status == doubt.status
    ]
    sought = {
        claim_of(each): each for each in found if each.provider_id is None and each.doubt.user and each.doubt.event
    }
    for claim, message in (await messages_for(store, list(sought))).items():
        if message is not None:
            address = sought[claim].doubt.address or message.address
            sought[claim].message = replace(message, address=address)
    askable = [each for each in found if each.provider_id or each.message]
    return askable, [each for each in found if each not in askable]


async def _ask(questions: Sequence[Question], askable: Mapping[Channel, Askable]) -> list[Question]:
    """Those that were answered, with what the provider knows. One after the other: nobody waits for it, and a provider
    counts requests."""
    answered: list[Question] = []
    unanswered = dict.fromkeys(askable, 0)
    for each in questions:
        channel = Channel(each.doubt.channel)
        if unanswered[channel] >= _MOST_UNANSWERED:
            continue
        try:
            each.known = await _known(each, askable[channel])
            answered.append(each)
        except ProviderAway as error:
            unanswered[channel] += 1
            logger.warning("{} could not be asked about {}: {}", each.provider, each.doubt.delivery, error)
    return answered


async def _known(question: Question, provider: Askable) -> list[Known]:
    if question.provider_id is not None:
        found = await provider.fetch(question.provider_id)
        return [found] if found else []
    assert question.message is not None  # noqa: S101  # _questions keeps no other
    window = question.window
    return list(await provider.search(question.message, window.began_ms - SLACK_MS, window.ended_ms + SLACK_MS))


async def _settle(store: Store, answered: Sequence[Question]) -> LookUpCounts:
    searched = [each for each in answered if each.provider_id is None]
    if searched and not await store.caught_up(_DRAINED_S):
        # Whose a message is may be on its way to Postgres: what was searched for is asked about in the next run.
        answered = [each for each in answered if each.provider_id is not None]
    addresses = [each.message.address for each in searched if each.message]
    rivals = await store.postgres.call(look_ups.rivals, addresses) if searched else []
    ids = [known.provider_id for each in searched for known in each.known]
    owners = await store.postgres.call(look_ups.owners, ids) if ids else {}
    answers = []
    for each in answered:
        taken = {sid for sid, whose in owners.items() if whose - {each.doubt.delivery}}
        answers.append((each, judged(each, taken, rival_windows(each, rivals))))
    tellings = [told for each, answer in answers if (told := telling(each, answer))]
    for first in range(0, len(tellings), MOST_ITEMS):
        await store.settle(tellings[first : first + MOST_ITEMS])
    if answers:
        # After the facts: what was asked and not told of would not be asked again.
        await store.postgres.call(look_ups.keep, [answer for _, answer in answers])
    return _counts(answers)


def _counts(judged: Sequence[tuple[Question, LookUp]]) -> LookUpCounts:
    results = [answer.result for _, answer in judged]
    settled = sum(1 for each, answer in judged if answer.result is Result.FOUND and telling(each, answer))
    return LookUpCounts(
        settled=settled,
        unconfirmed=results.count(Result.FOUND) - settled,
        not_found=results.count(Result.NOT_FOUND),
        tied=results.count(Result.TIE),
        low=results.count(Result.LOW),
    )
