"""Whose data this is: two Tocsins that share a Redis under one namespace, but no Postgres, would mix up what they have.

An installation is known by the moment at which its schema was begun, which goes with the data wherever that is moved.
"""

from typing import Any, Final

from tocsin.storage.database import cursor
from tocsin.storage.keys import Keys
from tocsin.storage.redis import told

MADE: Final = "select md5(extract(epoch from applied_at)::text) from schema_migrations where name = '0001_tables.sql'"


def installation() -> str:
    """The name of the installation that this Postgres belongs to. Run by Postgres.call."""
    with cursor() as query:
        query.execute(MADE)
        (name,) = query.fetchone()
    return str(name)


async def take_redis(client: Any, keys: Keys, mine: str) -> bool:
    """Whether the keys in Redis are those of the installation `mine`; makes them so where they are nobody's. Raises
    RedisAway."""
    with told():
        await client.set(keys.installation, mine, nx=True)
        return bool(await client.get(keys.installation) == mine)
