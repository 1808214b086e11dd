"""What could not be stored, for admins: looked at, and tried again when the cause is mended (I3)."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import Field

from tocsin.http.caller import ADMINS
from tocsin.http.cursors import page_of
from tocsin.http.endpoint import Call, Endpoint
from tocsin.http.problems import BAD_CURSOR, Problem
from tocsin.http.shapes import Answer, Asked, Listing, Moment, NoQuery, Paging
from tocsin.storage import bad_facts
from tocsin.storage.by import By

_ENTRY: Final = r"^[0-9]{1,20}-[0-9]{1,20}$"
EntryId = Annotated[str, Field(pattern=_ENTRY)]


class BadFactsEntry(Answer):
    """A journal entry that could not be stored. What it says is shown to nobody here: it may hold addresses."""

    id: str
    why: str
    kept_at: Moment
    kinds: tuple[str, ...]
    size: int


class BadFacts(Listing[BadFactsEntry]):
    """The entries that could not be stored, by id."""


class RetryBadFacts(Asked):
    """Which entries to try again; the oldest where none is named."""

    ids: Annotated[tuple[EntryId, ...], Field(min_length=1, max_length=bad_facts.MOST_AT_ONCE)] | None = None


class RetriedBadFacts(Answer):
    """How many entries are in the journal again, and how many are still kept as bad."""

    retried: int
    remaining: int


async def list_bad_facts(call: Call[None, Paging]) -> BadFacts:
    """The journal entries that Postgres refused as data or that met a defect. It should be empty."""
    query = call.query
    if query.cursor is not None and not re.fullmatch(_ENTRY, query.cursor):
        raise Problem(BAD_CURSOR, field="cursor")
    found = await call.context.store.postgres.call(bad_facts.listed, query.limit + 1, query.cursor or "")
    page, after = page_of(found, query.limit, lambda last: last.id)
    data = tuple(
        BadFactsEntry(id=each.id, why=each.why, kept_at=each.created_ms, kinds=each.kinds, size=each.size)
        for each in page
    )
    return BadFacts(data=data, next_cursor=after)


async def retry_bad_facts(call: Call[RetryBadFacts, NoQuery]) -> RetriedBadFacts:
    """Puts up to a hundred entries back into the journal, to be stored like any other. What is refused again is kept as
    bad again, under another id. Safe to repeat."""
    by = By(call.caller.name, call.cid)
    retried, remaining = await call.context.store.retry_bad_facts(call.body.ids, by)
    return RetriedBadFacts(retried=retried, remaining=remaining)


_PATH: Final = "/api/bad-facts"
_TAG: Final = "bad facts"

ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path=_PATH,
        handler=list_bad_facts,
        summary="What could not be stored",
        tag=_TAG,
        who=ADMINS,
        query=Paging,
        answer=BadFacts,
        problems=(BAD_CURSOR,),
    ),
    Endpoint(
        method="POST",
        path=f"{_PATH}/retry",
        handler=retry_bad_facts,
        summary="Try again to store it",
        tag=_TAG,
        who=ADMINS,
        body=RetryBadFacts,
        answer=RetriedBadFacts,
    ),
)
