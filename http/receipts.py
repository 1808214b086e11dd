"""How well receipts come (R8), and what providers answered when they were asked (T7)."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Final
from uuid import UUID

from pydantic import Field

from tocsin.domain.delivery import Channel
from tocsin.domain.errors import InvalidInput
from tocsin.http.caller import ADMINS
from tocsin.http.cursors import cursor_of, page_of, place_of
from tocsin.http.endpoint import Call, Endpoint
from tocsin.http.problems import BAD_CURSOR
from tocsin.http.shapes import Answer, AskedMoment, Listing, Moment, Paging, Query
from tocsin.storage import look_ups, receipts
from tocsin.storage.look_ups import Answered, Result
from tocsin.storage.receipts import ReceiptDay

_WEEK: Final = 6
_LONGEST: Final = timedelta(days=366)
_DAY: Final = timedelta(days=1)
_DAY_MS: Final = 86_400_000


class ReceiptsQuery(Query):
    """Which days, in UTC, both among them; the last seven where nothing is said."""

    from_: date | None = Field(None, alias="from")
    to: date | None = None


class ReceiptDayShown(Answer):
    """One day of one provider. `received` are messages whose first receipt came, `late…` those of them that it took
    longer for, `neverReceived` those that it should have come for by now; `share` is received of expected, and
    `providerTotal` how many messages the provider itself lists."""

    day: date
    provider: str
    expected: int
    received: int
    late_by_5_minutes: int = Field(alias="lateBy5Minutes")
    late_by_10_minutes: int = Field(alias="lateBy10Minutes")
    never_received: int
    mean_delay_ms: int | None
    share: float | None
    provider_total: int | None


class ReceiptDays(Answer):
    """The days that had anything, the newest first."""

    data: tuple[ReceiptDayShown, ...]


class DuplicatesQuery(Query):
    """Since when; a day ago where nothing is said."""

    from_: AskedMoment | None = Field(None, alias="from")


class DuplicateShown(Answer):
    """One attempt that its provider has several messages of."""

    delivery_id: UUID
    attempt: int
    provider_ids: tuple[str, ...]


class Duplicates(Answer):
    """The attempts of which receipts, or the provider's own answer, name more than one message."""

    data: tuple[DuplicateShown, ...]


class LookUpsQuery(Paging):
    """Which answers."""

    result: Result | None = None


class LookUpShown(Answer):
    """The last answer about one attempt. LOW and TIE are for a person to judge: the message found, if there is one, is
    not taken for the attempt's."""

    delivery_id: UUID
    attempt: int
    asked_at: Moment
    times: int
    result: Result
    provider: str
    method: str | None
    confidence: str | None
    difference_ms: int | None
    provider_id: str | None
    provider_status: str | None
    candidates: int


class LookUps(Listing[LookUpShown]):
    """A page of answers, those about the newest events first."""


async def list_receipt_days(call: Call[None, ReceiptsQuery]) -> ReceiptDays:
    """Today and yesterday are counted now; days before are as they were stored."""
    today = datetime.now(UTC).date()
    last = call.query.to or today
    first = call.query.from_ or date.fromordinal(max(1, last.toordinal() - _WEEK))
    if not timedelta() <= last - first <= _LONGEST:
        raise InvalidInput("from", "It is after `to`, or more than a year before it")
    postgres, settings = call.context.store.postgres, call.context.settings
    days = {(each.day, each.provider): each for each in await postgres.call(receipts.stored, first, last)}
    if last >= today - _DAY and (carriers := _with_receipts(call)):
        fresh = max(first, today - _DAY)
        for each in await postgres.call(receipts.counted, carriers, fresh, last, settings.uncertain.receipt_after):
            days[each.day, each.provider] = _with_total(each, days.get((each.day, each.provider)))
    newest_first = sorted(days.values(), key=lambda each: (-each.day.toordinal(), each.provider))
    return ReceiptDays(data=tuple(map(_day_shown, newest_first)))


def _with_receipts(call: Call[None, ReceiptsQuery]) -> list[str]:
    carrier = call.context.carriers.get(Channel.SMS)
    return [carrier.provider] if carrier and carrier.receipts else []


def _with_total(counted: ReceiptDay, stored: ReceiptDay | None) -> ReceiptDay:
    return replace(counted, provider_total=stored.provider_total if stored else None)


def _day_shown(day: ReceiptDay) -> ReceiptDayShown:
    return ReceiptDayShown(
        day=day.day,
        provider=day.provider,
        expected=day.expected,
        received=day.received,
        late_by_5_minutes=day.late_5m,
        late_by_10_minutes=day.late_10m,
        never_received=day.never,
        mean_delay_ms=day.delay_ms // day.received if day.received else None,
        share=round(day.received / day.expected, 4) if day.expected else None,
        provider_total=day.provider_total,
    )


async def list_duplicates(call: Call[None, DuplicatesQuery]) -> Duplicates:
    """At most 1,000 attempts of which a receipt came since then."""
    since_ms = call.query.from_
    if since_ms is None:
        since_ms = time.time_ns() // 1_000_000 - _DAY_MS
    found = await call.context.store.postgres.call(receipts.duplicates, max(0, since_ms))
    return Duplicates(
        data=tuple(
            DuplicateShown(delivery_id=each.delivery, attempt=each.attempt, provider_ids=each.provider_ids)
            for each in found
        )
    )


async def list_look_ups(call: Call[None, LookUpsQuery]) -> LookUps:
    """What providers answered when they were asked what became of a delivery."""
    query = call.query
    before = place_of(query.cursor) if query.cursor else None
    found = await call.context.store.postgres.call(look_ups.answers, query.result, before, query.limit + 1)
    page, after = page_of(found, query.limit, lambda last: cursor_of(last.look_up.attempt, last.look_up.delivery))
    return LookUps(data=tuple(map(_look_up_shown, page)), next_cursor=after)


def _look_up_shown(answered: Answered) -> LookUpShown:
    told = answered.look_up
    return LookUpShown(
        delivery_id=told.delivery,
        attempt=told.attempt,
        asked_at=answered.asked_ms,
        times=answered.times,
        result=told.result,
        provider=told.provider,
        method=told.method,
        confidence=told.confidence,
        difference_ms=told.difference_ms,
        provider_id=told.provider_id,
        provider_status=told.word,
        candidates=told.candidates,
    )


ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path="/api/reconciliation/callbacks",
        handler=list_receipt_days,
        summary="How well receipts come",
        tag="reconciliation",
        who=ADMINS,
        query=ReceiptsQuery,
        answer=ReceiptDays,
    ),
    Endpoint(
        method="GET",
        path="/api/reconciliation/duplicates",
        handler=list_duplicates,
        summary="What providers sent twice",
        tag="reconciliation",
        who=ADMINS,
        query=DuplicatesQuery,
        answer=Duplicates,
    ),
    Endpoint(
        method="GET",
        path="/api/reconciliation/look-ups",
        handler=list_look_ups,
        summary="What providers answered",
        tag="reconciliation",
        who=ADMINS,
        query=LookUpsQuery,
        answer=LookUps,
        problems=(BAD_CURSOR,),
    ),
)
