"""What is known of API keys, copied to Redis, so that a process can judge a key while Postgres is away."""

import json
from typing import Any

from tocsin.storage.keys import Keys
from tocsin.storage.redis import told


class KeysMirror:
    """By the hash of the key's secret: its role, name and identity. The secret is in neither store."""

    def __init__(self, client: Any, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def keep(self, hashed: str, known: dict[str, str]) -> None:
        """Keeps what Postgres said of a key."""
        with told():
            await self._client.hset(self._keys.api_keys, hashed, json.dumps(known))

    async def find(self, hashed: str) -> dict[str, str] | None:
        """What Postgres last said of a key; None where it was never asked."""
        with told():
            text = await self._client.hget(self._keys.api_keys, hashed)
        return json.loads(text) if text else None

    async def forget(self, hashed: str) -> None:
        """Removes a key that was revoked."""
        with told():
            await self._client.hdel(self._keys.api_keys, hashed)
