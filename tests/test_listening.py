"""The server that answers HTTP, while nobody asks and as it ends."""

import asyncio
import time
from contextlib import suppress

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tocsin.cli.listening import Server, listen


class Counting(Server):
    """Counts how often it looks up."""

    looks = 0

    async def on_tick(self, counter: int) -> bool:
        self.looks += 1
        return await super().on_tick(counter)


async def test_a_server_looks_up_once_a_second_for_the_date_and_ends_at_once() -> None:
    listening = listen("127.0.0.1", 0)
    application = Starlette(routes=[Route("/", lambda _: PlainTextResponse("here"))])
    server = Counting(uvicorn.Config(application, lifespan="off", log_config=None, access_log=False))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    dates: list[str] = []
    async with httpx.AsyncClient(trust_env=False) as client:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        async with asyncio.timeout(20):
            while len(set(dates)) < 3:
                with suppress(httpx.TransportError):
                    dates.append((await client.get(url)).headers["date"])
                await asyncio.sleep(0.05)
    looks, began_s = server.looks, time.monotonic()
    server.end()
    await serving
    listening.close()
    assert looks <= 6, "ten a second of uvicorn's own would be twenty by then"
    assert time.monotonic() - began_s < 0.9, "it waits for no look"
