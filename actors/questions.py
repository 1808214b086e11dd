"""A question to a provider about one attempt in doubt, and what its answer means. Without I/O."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tocsin.channels.contract import Known, Message
from tocsin.domain.correlation import Attribution, Candidate, Confidence, Method, Unattributed, Window, attribute
from tocsin.domain.delivery import Channel, Fact, History, Reason, Status, key, parse_key, standings
from tocsin.storage.flight_parts import Claim
from tocsin.storage.look_ups import Doubt, LookUp, Result, Rival
from tocsin.storage.settling import Telling


@dataclass(slots=True)
class Question:
    """One attempt that is asked about, and what the provider knows that could be it."""

    doubt: Doubt
    attempt: int
    provider: str
    provider_id: str | None
    message: Message | None
    known: list[Known] = field(default_factory=list)

    @property
    def window(self) -> Window:
        return window_of(self.doubt.history, self.attempt)

    def answer(self, result: Result) -> LookUp:
        """What is kept of it at least."""
        return LookUp(self.doubt.delivery, self.attempt, result, self.provider)


def provider_id_of(doubt: Doubt, attempt: int) -> str | None:
    ids = (fact.get("provider_id") for place, fact in doubt.history.items() if parse_key(place)[0] == attempt)
    return next(filter(None, ids), None)


def claim_of(question: Question) -> Claim:
    """The attempt as it was claimed; nothing is claimed by it."""
    doubt = question.doubt
    assert doubt.user is not None  # noqa: S101  # only those are sought
    assert doubt.event is not None  # noqa: S101
    channel = Channel(doubt.channel)
    return Claim(doubt.notification, doubt.step, question.attempt, doubt.user, doubt.event, channel, "")


def window_of(history: History, attempt: int) -> Window:
    """When an attempt in doubt can have reached its provider: from its call's beginning, or if that is not known from
    when it could begin, until it was given up."""
    times = {place: fact["at"] for place, fact in history.items() if parse_key(place)[0] == attempt}
    began_ms = times.get(key(attempt, Status.SENDING), min(times.values()))
    return Window(began_ms, max(began_ms, times.get(key(attempt, Status.UNCERTAIN), began_ms)))


def rival_windows(question: Question, rivals: Sequence[Rival]) -> list[Window]:
    """When other attempts, of this delivery or of others, may have said the same to the same address."""
    message = question.message
    if message is None:
        return []
    alike = [
        each
        for each in rivals
        if (each.channel, each.address, each.text) == (message.channel, message.address, message.text)
    ]
    return [
        window_of(each.history, attempt)
        for each in alike
        for attempt, status in standings(each.history).items()
        if status in {Status.SENDING, Status.UNCERTAIN}
        and (each.delivery, attempt) != (question.doubt.delivery, question.attempt)
    ]


def judged(question: Question, taken: set[str], rivals: Sequence[Window]) -> LookUp:
    answer = question.answer(Result.NOT_FOUND)
    if question.provider_id is not None:
        return _exact(question, answer)
    known = {each.provider_id: each for each in question.known}
    candidates = [Candidate(each.provider_id, each.at_ms) for each in question.known]
    found = attribute(question.window, candidates, taken=taken, rivals=rivals)
    answer = replace(answer, candidates=len(known))
    if isinstance(found, Attribution):
        low = found.confidence is Confidence.LOW
        return replace(
            answer,
            result=Result.LOW if low else Result.FOUND,
            method=Method.TIME_WINDOW,
            confidence=found.confidence,
            difference_ms=found.difference_ms,
            provider_id=found.candidate.provider_id,
            word=known[found.candidate.provider_id].word,
        )
    return replace(answer, result=Result.TIE) if found is Unattributed.TIE else answer


def _exact(question: Question, answer: LookUp) -> LookUp:
    if not question.known:
        return replace(answer, provider_id=question.provider_id)
    (found,) = question.known
    return replace(
        answer,
        result=Result.FOUND,
        method=Method.PROVIDER_ID,
        confidence=Confidence.HIGH,
        provider_id=found.provider_id,
        word=found.word,
        candidates=1,
    )


def telling(question: Question, answer: LookUp) -> Telling | None:
    """The fact that an answer makes. That nothing was found is one too, once: people see that it was asked."""
    doubt = question.doubt
    place = (doubt.notification, doubt.step, Channel(doubt.channel), question.attempt)
    if answer.result is Result.NOT_FOUND and doubt.status == Status.UNCERTAIN:
        if key(question.attempt, Status.UNCERTAIN, Reason.NOT_FOUND) in doubt.history:
            return None
        detail: Fact = {"reason": Reason.NOT_FOUND, "provider": question.provider}
        return Telling(*place, Status.UNCERTAIN, detail, Reason.NOT_FOUND)
    if answer.result is not Result.FOUND:
        return None
    known = next(each for each in question.known if each.provider_id == answer.provider_id)
    if known.status == doubt.status:
        return None
    told = {
        "reason": known.reason,
        "provider": question.provider,
        "provider_id": known.provider_id,
        "code": known.code,
        "message": known.message,
        "segments": known.segments,
        "price": known.price,
        "method": answer.method,
        "confidence": answer.confidence,
        "difference": answer.difference_ms,
    }
    return Telling(*place, known.status, {name: value for name, value in told.items() if value is not None}, known.word)
