"""Which types of events people want, where an event is posted to subscribers (P2). Run by Postgres.call."""

from collections.abc import Mapping
from typing import Final

from tocsin.storage.database import cursor
from tocsin.storage.transactions import in_transaction

# Whoever writes several rows locks them in one order.
_PUT: Final = """
insert into subscriptions as known (user_id, type, active)
select %(user)s, type, active from unnest(%(types)s::text[], %(active)s::boolean[]) as given (type, active)
order by type
on conflict (user_id, type) do update set active = excluded.active, updated_at = now()
where known.active <> excluded.active
"""


def subscriptions_of(user: str) -> dict[str, bool]:
    """The types that a user was asked about or asked for, and whether each is wanted."""
    with cursor() as query:
        query.execute("select type, active from subscriptions where user_id = %s order by type", (user,))
        return dict(query.fetchall())


def put_subscriptions(user: str, wanted: Mapping[str, bool], kept: frozenset[str]) -> None:
    """Stores what a user wants in place of what was; the types of `kept` stay as they are."""
    types = sorted(set(wanted) - kept)
    given = {"user": user, "types": types, "active": [wanted[each] for each in types], "stay": [*types, *sorted(kept)]}

    def write() -> None:
        with cursor() as query:
            query.execute("delete from subscriptions where user_id = %(user)s and type <> all(%(stay)s::text[])", given)
            query.execute(_PUT, given)

    in_transaction(write)
