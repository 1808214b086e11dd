"""What is wrong with the plan of a statement, and what is let pass with a reason."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from tests.plans.asked import Statement
from tests.plans.plan import MOST_COST, Plan

COSTLY: Final = {
    "cancellations.waiting_events": "looks at the events of up to a hundred milliseconds, a few each",
    "completed.made": "counts the rows of up to a hundred events, each once, when its fan-out ended",
    "counts._miscounted": "counts the rows of some events, each once, when its fan-out ended",
    "dead_letters.causes": "groups all dead letters there are",
    "rebuild_queries.open_deliveries": "a page of 20,000, read when Redis was lost",
    "rebuild_queries.short_of_notifications": "counts the rows of what ended in the last minute before a loss",
    "receipts.duplicates": "looks at each delivery that had a receipt since then, when somebody asks",
}
"""What may cost more than MOST_COST without reading any table through."""

STOPS_AT_ONCE: Final = {"lives.is_new": "stops at the first row"}
"""What may seem to read a table through."""

_OF_SEVERAL: Final = "the ids that it is given are of several spans of time"
_AS_IT_RUNS: Final = "chooses the partition of each row as it runs"
EVERYWHERE: Final = {
    "inbox_queries.inbox": "a person's entries of any time, by the index of each partition",
    "inbox_queries.unread_count": "a person's entries of any time",
    "inbox_queries.unread_ids": "a person's entries of any time",
    "delivery_queries.deliveries": "by user, provider's id or status; without any of them of a week",
    "dead_letters._asked": "the few that are dead, of any time",
    "ledger.open_page": "the few that are open, of any time",
    "cancellations.waiting": "the few that are open, of any time",
    "cancellations.waiting_events": "the few that are open, of any time",
    "rebuild_queries.open_deliveries": "the few that are open, of any time",
    "look_ups.due": "the few that are in doubt, of any time",
    "look_ups.rivals": "the few under way to an address, of any time",
    "look_ups.owners": "a provider's id tells no time",
    "provider_ledger.uncertain": "the few that are in doubt, of any time",
    "provider_ledger.unconfirmed": "SMS by when they were sent, which may be long after their event",
    "receipts.counted": "SMS by when they were sent, which may be long after their event",
    "completed.made": _AS_IT_RUNS,
    "counts._miscounted": _AS_IT_RUNS,
    "provider_ledger.duplicates": _AS_IT_RUNS,
    "rebuild_queries.short_of_notifications": _AS_IT_RUNS,
    "receipts.duplicates": _AS_IT_RUNS,
    "discards._discard": _OF_SEVERAL,
    "ledger.cancelled_events": _OF_SEVERAL,
    "ledger.locked": _OF_SEVERAL,
    "ledger.statuses": _OF_SEVERAL,
    "ledger.unwanted": _OF_SEVERAL,
    "replays._replay": _OF_SEVERAL,
}
"""What may look into each partition."""

_INDEXES: Final = """
select coalesce(parent.relname, index.relname), array_agg(index.relname), bool_or(told.indisunique)
from pg_index told
join pg_class index on index.oid = told.indexrelid
join pg_class owner on owner.oid = told.indrelid
left join pg_inherits link on link.inhrelid = index.oid
left join pg_class parent on parent.oid = link.inhparent
where owner.relnamespace = 'public'::regnamespace and owner.relname <> 'schema_migrations'
group by 1
"""


def faults(statement: Statement, plan: Plan, large: set[str]) -> Iterator[str]:
    """What is wrong, in words."""
    asking = set(statement.functions)
    if not STOPS_AT_ONCE.keys() & asking:
        yield from (f"reads {table} through" for table in sorted(plan.scanned(large)))
    if plan.cost > MOST_COST and not COSTLY.keys() & asking:
        yield f"costs {plan.cost:,.0f}"


def looks_everywhere(plan: Plan) -> bool:
    """Whether it looks into partitions of several spans of time, without choosing them as it runs."""
    return any(len(plan.partitions_of(table)) > 1 for table in ("notifications", "deliveries"))


def idle_indexes(query: Any, plans: Iterable[Plan]) -> set[str]:
    """The indexes that none of the plans uses and that keep nothing unique."""
    used: set[str] = set().union(*(plan.indexes for plan in plans))
    query.execute(_INDEXES)
    return {name for name, names, is_unique in query.fetchall() if not is_unique and used.isdisjoint(names)}
