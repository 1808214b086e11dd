"""Facts that Postgres refused as data, or that met a defect of ours: kept word for word, listed, and tried again once
the cause is mended. Run by Postgres.call; they go back into the journal by `Store.retry_bad_facts`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tocsin.storage.audit import audit
from tocsin.storage.by import By
from tocsin.storage.database import cursor, database
from tocsin.storage.moments import ms_of

MOST_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class BadFact:
    """One journal entry that could not be stored, without what it says: that may be anybody's address."""

    id: str
    why: str
    created_ms: int
    kinds: tuple[str, ...]
    size: int


def listed(most: int, after: str = "") -> list[BadFact]:
    """Up to `most` of them by their ids, from behind `after`."""
    with cursor() as query:
        query.execute(
            "select entry_id, why, created_at, facts from bad_facts where entry_id > %s order by entry_id limit %s",
            (after, most),
        )
        return [
            BadFact(identifier, why, ms_of(at), _kinds(bytes(facts)), len(facts))
            for identifier, why, at, facts in query.fetchall()
        ]


def kept(ids: Sequence[str] | None, most: int) -> dict[str, list[dict[str, Any]]]:
    """The facts of up to `most` entries by their ids: of those named, or of the oldest."""
    wanted = None if ids is None else list(ids)
    with cursor() as query:
        query.execute(
            "select entry_id, facts from bad_facts where %s::text[] is null or entry_id = any(%s)"
            " order by created_at, entry_id limit %s",
            (wanted, wanted, most),
        )
        return {identifier: json.loads(bytes(facts)) for identifier, facts in query.fetchall()}


def forget(ids: Sequence[str], by: By) -> int:
    """Forgets entries that are in the journal again; answers how many others are kept."""
    with database.atomic(), cursor() as query:
        query.execute("delete from bad_facts where entry_id = any(%s)", (list(ids),))
        audit("bad_facts.retried", by.actor, by.cid, {"entries": list(ids)})
        query.execute("select count(*) from bad_facts")
        return int(query.fetchone()[0])


def _kinds(facts: bytes) -> tuple[str, ...]:
    return tuple(sorted({str(fact.get("f")) for fact in json.loads(facts) if isinstance(fact, dict)}))
