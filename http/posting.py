"""Posting events: `POST /api/notifications`, and up to a thousand at once through `/bulk`."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from loguru import logger

from tocsin.domain import ids
from tocsin.domain.errors import InvalidInput, RedisAway
from tocsin.domain.posting import Origin, Posting, compose
from tocsin.http.caller import SENDERS
from tocsin.http.endpoint import Call, Endpoint
from tocsin.http.idempotency import REPLAYED, idempotency_of
from tocsin.http.posting_shapes import (
    Addressed,
    BulkItem,
    BulkNotifications,
    BulkPosted,
    Durability,
    Posted,
    PostNotification,
    PostResult,
    RejectedRecipient,
)
from tocsin.http.problems import (
    BAD_FILTER,
    BAD_ROLE,
    BAD_TOPIC_KEY,
    BAD_USER_ID,
    INTERNAL,
    KEY_BUSY,
    NO_RECIPIENTS,
    NO_STEPS,
    NOTHING_ACCEPTED,
    STILL_RUNNING,
    TOO_MANY,
    UNAVAILABLE,
    UNKNOWN_CHANNEL,
    UNKNOWN_POLICY,
    UNKNOWN_PRIORITY,
    UNKNOWN_STRATEGY,
    UNKNOWN_TOPIC,
    Problem,
)
from tocsin.http.recipients import SHOWN_OF_ID, People, people_of
from tocsin.http.refusals import from_exception, from_findings
from tocsin.http.shapes import NoQuery

SHOWN_NOTIFICATIONS: Final = 100
"""How many of an event's notifications the answer names."""

_BULK_AT_ONCE: Final = 64

POSTING_PROBLEMS: Final = (
    NO_RECIPIENTS,
    TOO_MANY,
    NO_STEPS,
    UNKNOWN_CHANNEL,
    UNKNOWN_POLICY,
    UNKNOWN_PRIORITY,
    UNKNOWN_STRATEGY,
    KEY_BUSY,
    UNKNOWN_TOPIC,
    BAD_TOPIC_KEY,
    BAD_ROLE,
    BAD_FILTER,
    BAD_USER_ID,
)


async def post_one(call: Call[Any, Any], body: PostNotification, *, place: str = "") -> tuple[Posted, bool]:
    """Accepts one event; also says whether the answer is a repetition. `place` tells the events of one bulk request
    apart. Raises Problem, InvalidInput, Conflict and Unavailable."""
    now_ms = time.time_ns() // 1_000_000
    identifier = ids.event_id(now_ms, os.urandom(10))
    # What is wrong with the event itself is told before anybody is looked for.
    composed = compose(_posting_of(body), Origin(identifier, now_ms, call.caller.name, call.cid), call.context.settings)
    people = await people_of(call.context, body)
    found = {"recipient_count": people.count, "unknown_ids": tuple(people.unknown_ids), "audience": people.audience}
    event = composed.model_copy(update=found)
    # Little is kept for a repetition: the rest of the answer follows from the body, which is the same.
    kept = {"id": str(identifier), "unknownIds": people.unknown_ids}
    taken = await call.context.store.accept(event, people.good, idempotency_of(call, place, kept))
    if taken.replay is not None:
        return _posted_earlier(taken.replay, people), True
    return _posted_earlier(kept | taken.told | {"durability": taken.durability}, people), False


async def post_notification(call: Call[PostNotification, NoQuery]) -> Posted:
    """The event is stored before the answer. A recipient with a wrong number or address, or an unknown id, does not
    stop the others: it is listed in the answer."""
    posted, replayed = await post_one(call, call.body)
    if replayed:
        call.headers[REPLAYED] = "true"
    return posted


async def post_bulk(call: Call[BulkNotifications, NoQuery]) -> BulkPosted:
    """Each event is accepted or refused on its own; the results stand in the order of the request. Repeated with its
    Idempotency-Key, a request does only what was not done."""
    placed, refused = call.body.placed, call.body.refused
    most = call.context.settings.limits.bulk
    if len(placed) + len(refused) > most:
        raise Problem(TOO_MANY, f"More than {most} events in one request.", field="/notifications")
    async with _only_one(call):
        items = await _Bulk(call).post(placed)
    unread = [
        _refused(place, from_findings(found, PostNotification.later, below=2)) for place, found in refused.items()
    ]
    results = sorted([*(item for item, _ in items), *unread], key=lambda item: item.index)
    accepted = sum(item.success for item in results)
    if not accepted:
        raise _nothing_accepted(results)
    if all(replayed for item, replayed in items if item.success):
        call.headers[REPLAYED] = "true"
    return BulkPosted(success=True, accepted=accepted, refused=len(results) - accepted, results=tuple(results))


@asynccontextmanager
async def _only_one(call: Call[Any, Any]) -> AsyncIterator[None]:
    """Holds the key of a bulk request while it runs, so that it does not run twice at once. Each event has a key of its
    own beside it, which holds in Postgres too."""
    given = idempotency_of(call, ":bulk", {})
    if given is None:
        yield
        return
    repeats = call.context.store.repeats
    with suppress(RedisAway):
        await repeats.begin(given)
    try:
        yield
    except BaseException:
        with suppress(RedisAway):
            await repeats.abandon(given)
        raise
    with suppress(RedisAway):
        await repeats.finish(given, {})


def _by_key(placed: Sequence[tuple[int, PostNotification]]) -> list[list[tuple[int, PostNotification]]]:
    """Events that may be taken at once; those with one key are taken one after another."""
    groups: dict[object, list[tuple[int, PostNotification]]] = {}
    for place, body in placed:
        groups.setdefault(place if body.key is None else body.key, []).append((place, body))
    return list(groups.values())


class _Bulk:
    """The events of one bulk request."""

    def __init__(self, call: Call[Any, Any]) -> None:
        self._call = call
        self._gate = asyncio.Semaphore(_BULK_AT_ONCE)
        self._defects: list[Exception] = []

    async def post(self, placed: Sequence[tuple[int, PostNotification]]) -> list[tuple[BulkItem, bool]]:
        """What became of each, and whether that is a repetition."""
        done = await asyncio.gather(*(self._post_in_order(several) for several in _by_key(placed)))
        if self._defects:
            # What one event meets the others often meet too.
            failed = logger.opt(exception=self._defects[0])
            failed.error("{} events of {} failed; this is why the first did", len(self._defects), len(placed))
        return [item for several in done for item in several]

    async def _post_in_order(self, several: Sequence[tuple[int, PostNotification]]) -> list[tuple[BulkItem, bool]]:
        return [await self._post_item(index, body) for index, body in several]

    async def _post_item(self, index: int, body: PostNotification) -> tuple[BulkItem, bool]:
        async with self._gate:
            try:
                posted, replayed = await post_one(self._call, body, place=f":bulk:{index}")
            except Exception as error:
                problem = from_exception(error)
                if problem.kind is INTERNAL:
                    self._defects.append(error)
                return _refused(index, problem), False
        return BulkItem(index=index, success=True, status=202, result=posted), replayed


def _refused(index: int, problem: Problem) -> BulkItem:
    return BulkItem(index=index, success=False, status=problem.kind.status, problem=problem.as_json())


def _nothing_accepted(results: Sequence[BulkItem]) -> Problem:
    """What is worth repeating says so: callers give up what they hear 422 of."""
    more = {"results": [item.model_dump(mode="json") for item in results]}
    if all(item.status == UNAVAILABLE.status for item in results):
        return Problem(UNAVAILABLE, retry_after_s=5, more=more)
    codes = {str(item.problem["code"]) for item in results if item.problem and item.status != UNAVAILABLE.status}
    if INTERNAL.code in codes and codes <= {INTERNAL.code, STILL_RUNNING.code, KEY_BUSY.code}:
        return Problem(INTERNAL, more=more)
    if codes <= {STILL_RUNNING.code, KEY_BUSY.code}:
        return Problem(STILL_RUNNING if STILL_RUNNING.code in codes else KEY_BUSY, retry_after_s=1, more=more)
    return Problem(NOTHING_ACCEPTED, more=more)


def _posting_of(body: PostNotification) -> Posting:
    return Posting(
        type=body.type,
        message=body.message,
        title=body.title,
        metadata=body.metadata or {},
        channels=body.channels,
        strategy=body.delivery_strategy,
        priority=body.notification_priority,
        policy=body.policy,
        key=body.key,
        signature=_signature_of(body),
    )


def _signature_of(body: PostNotification) -> str | None:
    """What the event says, unless its sender has a word for that. Raises InvalidInput for one without a key."""
    if body.key is None and body.signature is not None:
        raise InvalidInput("/key", "A signature needs a key.", code="missing_field")
    if body.key is None or body.signature is not None:
        return body.signature
    return hashlib.sha256(body.model_dump_json().encode()).hexdigest()[:32]


def _posted(event: UUID, people: People, told: Mapping[str, Any]) -> Posted:
    good = people.good
    return Posted(
        id=event,
        recipient_count=people.count,
        durability=Durability(told.get("durability", Durability.POSTGRES)),
        result=PostResult(told.get("result", PostResult.ACCEPTED)),
        replaced_id=told.get("replacedId"),
        notifications=tuple(
            Addressed(recipient_id=person.id, id=ids.notification_id(event, person.id))
            for person in good[:SHOWN_NOTIFICATIONS]
        ),
        unknown_ids=tuple(people.unknown_ids),
        rejected_recipients=tuple(
            RejectedRecipient(id=person.id[:SHOWN_OF_ID], code=person.code, field=person.field)
            for person in people.rejected
        ),
    )


def _posted_earlier(kept: Mapping[str, Any], people: People) -> Posted:
    """The answer of the first request: who was unknown then is so in it, whoever is known now."""
    then = replace(people, unknown=frozenset(kept.get("unknownIds", people.unknown)))
    return _posted(UUID(kept["id"]), then, kept)


ENDPOINTS: Final = (
    Endpoint(
        method="POST",
        path="/api/notifications",
        handler=post_notification,
        summary="Post an event",
        tag="notifications",
        who=SENDERS,
        body=PostNotification,
        answer=Posted,
        status=202,
        problems=POSTING_PROBLEMS,
        idempotent=True,
    ),
    Endpoint(
        method="POST",
        path="/api/notifications/bulk",
        handler=post_bulk,
        summary="Post up to 1,000 events",
        tag="notifications",
        who=SENDERS,
        body=BulkNotifications,
        answer=BulkPosted,
        status=202,
        problems=(*POSTING_PROBLEMS, NOTHING_ACCEPTED),
        idempotent=True,
    ),
)
