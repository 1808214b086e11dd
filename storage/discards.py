"""Dead letters that somebody puts aside, with who, when and why; a replay takes one back. Run by Postgres.call."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from tocsin.storage.audit import audit
from tocsin.storage.by import By
from tocsin.storage.database import cursor
from tocsin.storage.transactions import in_transaction

# Locked, so that what is replayed at this moment is not put aside: it would be missing when it dies again.
_DELIVERIES: Final = """
select id from deliveries where id = any(%s::uuid[]) and status in ('FAILED', 'DEAD')
order by notification_id, step for update
"""
_EVENTS: Final = """
select id from events where id = any(%s::uuid[]) and status = 'FAILED' and cancelled_at is null order by id for update
"""
_DISCARD: Final = """
insert into discards (id, by, cid, reason) select id, %s, %s, %s from unnest(%s::uuid[]) as dead (id) order by id
on conflict do nothing returning id
"""


def discard(wanted: Sequence[UUID], reason: str, by: By) -> list[UUID]:
    """Puts the dead letters among `wanted` aside; answers those that were not yet."""
    return in_transaction(lambda: _discard(list(map(str, wanted)), reason, by))


def _discard(wanted: list[str], reason: str, by: By) -> list[UUID]:
    with cursor() as query:
        dead: list[str] = []
        # Events first, as persisters do.
        for statement in (_EVENTS, _DELIVERIES):
            query.execute(statement, (wanted,))
            dead += [str(identifier) for (identifier,) in query.fetchall()]
        query.execute(_DISCARD, (by.actor, by.cid, reason, dead))
        discarded: list[UUID] = [identifier for (identifier,) in query.fetchall()]
    if discarded:
        audit("dead_letters.discarded", by.actor, by.cid, {"reason": reason, "ids": list(map(str, discarded))})
    return discarded
