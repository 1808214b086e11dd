"""Dead letters (R4): what will not be tried again by itself, grouped by cause, replayed or put aside."""

from __future__ import annotations

import json
from typing import Any, Final

from starlette.responses import Response

from tocsin.domain.delivery import Reason
from tocsin.domain.errors import NotFound
from tocsin.http.caller import ADMINS, SENDERS, VIEWERS
from tocsin.http.cursors import id_of, page_of
from tocsin.http.dead_letter_shapes import (
    AskedFilter,
    CausesQuery,
    DiscardedLetters,
    DiscardLetters,
    LetterCauses,
    Letters,
    LettersQuery,
    RetriedDelivery,
    RetriedLetters,
    RetryLetters,
    cause_of,
    filter_of,
    letter_of,
)
from tocsin.http.delivery_shapes import delivery_of
from tocsin.http.endpoint import Call, Endpoint
from tocsin.http.idempotency import once_if_known
from tocsin.http.problems import BAD_CURSOR, BAD_USER_ID, CONFLICT, TOO_MANY, UNKNOWN_CHANNEL, Problem
from tocsin.http.shapes import NoQuery
from tocsin.storage import dead_letters, queries
from tocsin.storage.by import By
from tocsin.storage.dead_letters import Discarded, LetterFilter
from tocsin.storage.replays import Replayed
from tocsin.storage.revival import COUNTED_UP_TO, Rest

_WHY_NOT: Final = {
    Reason.READ: "it was read",
    Reason.CANCELLED: "it was read or its event was withdrawn",
    Reason.OPTED_OUT: "its recipient has switched that off",
    Reason.INACTIVE: "its recipient is inactive",
    Reason.REPLACED: "a later event has its event's key",
    Reason.MISSING: "its event is not known",
}


async def list_dead_letters(call: Call[None, LettersQuery]) -> Letters:
    """What ended FAILED or DEAD, those of the newest events first; what was discarded is left out unless asked for."""
    query = call.query
    wanted = filter_of(query, query.discarded, before=id_of(query.cursor) if query.cursor else None)
    found = await call.context.store.postgres.call(dead_letters.dead_letters, wanted, query.limit + 1)
    page, after = page_of(found, query.limit, lambda last: last.id)
    return Letters(data=tuple(map(letter_of, page)), next_cursor=after)


async def list_causes(call: Call[None, CausesQuery]) -> LetterCauses:
    """The dead letters grouped by kind, channel, provider, status, reason and code."""
    postgres = call.context.store.postgres
    found = await postgres.call(dead_letters.causes, filter_of(call.query, Discarded.ALL))
    return LetterCauses(
        data=tuple(map(cause_of, found)),
        total=sum(cause.count for cause in found),
        discarded=sum(cause.discarded for cause in found),
        held=await postgres.call(dead_letters.held_count, COUNTED_UP_TO),
    )


async def retry_delivery(call: Call[None, NoQuery]) -> Response:
    """Gives a delivery that ended FAILED or DEAD further attempts. Its ids and its history stay, its attempts' numbers
    go on, up to the next multiple of `retry.attempts`. What was read, withdrawn or switched off is not sent."""
    delivery, store = call.id("delivery"), call.context.store

    async def make() -> dict[str, Any]:
        done = await store.revival.replay_one(delivery, _by(call))
        found = await store.postgres.call(queries.delivery, delivery)
        if found is None:
            raise NotFound
        if not done.replayed:
            raise Problem(CONFLICT, _why_not(done))
        answer = RetriedDelivery(waiting_for_redis=bool(done.waiting), delivery=delivery_of(found))
        return answer.model_dump(mode="json")

    return Response(json.dumps(await once_if_known(call, make)), media_type="application/json")


async def retry_dead_letters(call: Call[RetryLetters, NoQuery]) -> RetriedLetters:
    """Replays a page of dead letters. Safe to repeat: what was replayed is no dead letter any more."""
    body = call.body

    async def make() -> dict[str, Any]:
        done, rest = await call.context.store.revival.replay(_wanted(body), body.limit, _by(call))
        return _retried(done, rest).model_dump(mode="json")

    return RetriedLetters(**await once_if_known(call, make))


async def discard_dead_letters(call: Call[DiscardLetters, NoQuery]) -> DiscardedLetters:
    """Puts a page of dead letters aside. They stay stored and can be listed; a replay takes one back."""
    body = call.body

    async def make() -> dict[str, Any]:
        revival = call.context.store.revival
        done, rest = await revival.discard(_wanted(body), body.limit, body.reason, _by(call))
        answer = DiscardedLetters(discarded=len(done), remaining=rest.remaining, next_cursor=rest.cursor)
        return answer.model_dump(mode="json")

    return DiscardedLetters(**await once_if_known(call, make))


def _wanted(body: RetryLetters) -> LetterFilter:
    asked = body.filter or AskedFilter()
    if asked.discarded is not None:
        discarded = asked.discarded
    else:
        # Who names one that was discarded means it.
        discarded = Discarded.ALL if body.ids and not isinstance(body, DiscardLetters) else Discarded.NO
    return filter_of(asked, discarded, body.ids, body.cursor)


def _retried(done: Replayed, rest: Rest) -> RetriedLetters:
    return RetriedLetters(
        replayed=len(done.replayed),
        waiting=done.waiting,
        refused=done.refused,
        skipped=done.skipped,
        busy=done.busy,
        remaining=rest.remaining,
        next_cursor=rest.cursor,
    )


def _why_not(done: Replayed) -> str:
    for reason in done.refused:
        return f"It is not sent again: {_WHY_NOT.get(Reason(reason), reason)}."
    return "It is no dead letter: only one that ended FAILED or DEAD is tried again."


def _by(call: Call[Any, Any]) -> By:
    return By(call.caller.name, call.cid)


_PATH: Final = "/api/dead-letters"
_TAG: Final = "dead letters"
_FILTER: Final = (BAD_USER_ID, UNKNOWN_CHANNEL)

ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path=_PATH,
        handler=list_dead_letters,
        summary="List dead letters",
        tag=_TAG,
        who=VIEWERS,
        query=LettersQuery,
        answer=Letters,
        problems=(BAD_CURSOR, *_FILTER),
    ),
    Endpoint(
        method="GET",
        path=f"{_PATH}/causes",
        handler=list_causes,
        summary="Dead letters by cause",
        tag=_TAG,
        who=VIEWERS,
        query=CausesQuery,
        answer=LetterCauses,
        problems=_FILTER,
    ),
    Endpoint(
        method="POST",
        path="/api/deliveries/{delivery}/retry",
        handler=retry_delivery,
        summary="Try a dead delivery again",
        tag=_TAG,
        who=SENDERS,
        answer=RetriedDelivery,
        problems=(CONFLICT,),
        idempotent=True,
    ),
    Endpoint(
        method="POST",
        path=f"{_PATH}/retry",
        handler=retry_dead_letters,
        summary="Replay dead letters",
        tag=_TAG,
        who=ADMINS,
        body=RetryLetters,
        answer=RetriedLetters,
        problems=(TOO_MANY, *_FILTER),
        idempotent=True,
    ),
    Endpoint(
        method="POST",
        path=f"{_PATH}/discard",
        handler=discard_dead_letters,
        summary="Put dead letters aside",
        tag=_TAG,
        who=ADMINS,
        body=DiscardLetters,
        answer=DiscardedLetters,
        problems=(TOO_MANY, *_FILTER),
        idempotent=True,
    ),
)
