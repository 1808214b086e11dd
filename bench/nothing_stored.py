"""The limit of accepting: the program's own endpoint, parsing, validating and authorising, over a store that keeps
nothing. Run as a process by accept.py; takes the program's settings from the environment."""

import os
from collections.abc import Sequence
from typing import Any, cast

import uvicorn
import uvloop
from prometheus_client import CollectorRegistry

from tocsin.cli.interpreter import collect_seldom
from tocsin.cli.logs import set_up
from tocsin.domain.event import Event, Recipient
from tocsin.domain.settings import load
from tocsin.http.application import build
from tocsin.http.context import Context
from tocsin.storage.intake import Taken
from tocsin.storage.store import Store


class NothingStored:
    """Takes everything and keeps nothing."""

    async def accept(self, event: Event, recipients: Sequence[Recipient], idempotency: Any) -> Taken:
        return Taken("postgres")


def main() -> None:
    settings = load(os.environ)
    set_up(settings.log.level, settings.log.format)
    context = Context(settings=settings, store=cast(Store, NothingStored()), registry=CollectorRegistry())
    # As cli/compose.py has it.
    config = uvicorn.Config(
        build(context),
        host=settings.http.host,
        port=settings.http.port,
        http="httptools",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
    )
    collect_seldom()
    uvloop.run(uvicorn.Server(config).serve())


if __name__ == "__main__":
    main()
