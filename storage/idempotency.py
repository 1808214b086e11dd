"""Idempotency-Keys in Postgres: they are stored with their event (accepted.py) and forgotten here."""

from tocsin.storage.database import cursor

# A key holds for a day; what is older is replaced when it comes again (accepted.py), so that nobody waits for this.
_FORGET = """
delete from idempotency where ctid = any(array(
  select ctid from idempotency where created_at < now() - interval '2 days' order by created_at limit %s
  for update skip locked
))
"""


def forget_old(limit: int) -> int:
    """Removes up to `limit` keys that no longer count; answers how many. Many processes may do so at once."""
    with cursor() as query:
        query.execute(_FORGET, (limit,))
        return int(query.rowcount)
