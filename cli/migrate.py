"""`tocsin migrate`: brings the schema of Postgres up to date."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from tocsin.cli.options import as_json_option, settings_here
from tocsin.cli.screen import Screen
from tocsin.domain.errors import TocsinError
from tocsin.domain.settings import Settings
from tocsin.storage import migrate as migrations
from tocsin.storage.embedded_postgres import EmbeddedPostgres


@click.command()
@as_json_option
def migrate(*, as_json: bool) -> None:
    """Bring the schema of Postgres up to date.

    `serve`, `http` and `actors` do the same when they start; any number of processes may do it at once.
    """
    screen = Screen(as_json=as_json)
    try:
        settings = settings_here()
        with _postgres(settings) as url:
            applied = migrations.migrate(url, period=settings.postgres.partition)
    except TocsinError as error:
        raise click.ClickException(str(error)) from error
    for name in applied:
        screen.tell(f"applied {name}")
    screen.tell("The schema is up to date.")
    screen.answer({"applied": applied})


@contextmanager
def _postgres(settings: Settings) -> Iterator[str]:
    """The address of the Postgres of these settings; our own is started for as long as this lasts."""
    if settings.postgres.url is not None:
        yield settings.postgres.url
        return
    own = EmbeddedPostgres(settings.data.dir)
    try:
        yield own.start()
    finally:
        own.stop()
