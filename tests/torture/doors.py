"""The ways in: the HTTP processes, each with as many requests at once as it may hang without stopping the rest."""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import httpx


class Doors:
    """A client for each process. One that hangs keeps at most `most` requests; others go through the other."""

    def __init__(self, urls: Sequence[str], chance: random.Random, *, most: int, timeout_s: float) -> None:
        limits = httpx.Limits(max_connections=most)
        self._clients = [
            httpx.AsyncClient(base_url=url, timeout=timeout_s, limits=limits, trust_env=False) for url in urls
        ]
        self._free = [asyncio.Semaphore(most) for _ in urls]
        self._chance = chance

    async def request(self, method: str, path: str, **given: Any) -> httpx.Response:
        """Through one that has room, by chance. Raises httpx.HTTPError."""
        numbers = range(len(self._clients))
        open_ones = [number for number in numbers if not self._free[number].locked()]
        number = self._chance.choice(open_ones or list(numbers))
        async with self._free[number]:
            return await self._clients[number].request(method, path, **given)

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()
