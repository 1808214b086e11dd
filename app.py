"""Composes settings, storage, actors and http into processes; the command line starts here.

`tocsin serve` does everything in one process; `tocsin http` and `tocsin actors` run parts of it, any number of either
on any number of machines (D1).
"""

import os
import sys
from typing import Final

from tocsin.cli import interrupts  # isort: split

import click
from loguru import logger

from tocsin.actors import queues as names
from tocsin.cli import commands
from tocsin.cli.compose import Parts, run
from tocsin.cli.logs import set_up
from tocsin.domain.errors import SettingError, TocsinError
from tocsin.domain.settings import Settings, load

_FAILED: Final = 1
_WRONG_USE: Final = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tocsin")
def main() -> None:
    """Tocsin tells people things, on the channel that reaches them, and stops when they have read it."""
    interrupts.restore()


@main.command()
@click.option("--sandbox", is_flag=True, help="Send to SMTP, Twilio and FCM servers of our own on this machine.")
@click.option("--ephemeral", is_flag=True, help="Take a Redis that forgets, where no Redis can be had.")
def serve(*, sandbox: bool, ephemeral: bool) -> None:
    """Run everything in one process."""
    _run(Parts(http=True, queues=names.ALL, sandbox=sandbox, ephemeral=ephemeral))


@main.command()
def http() -> None:
    """Answer HTTP only; actors run elsewhere."""
    _run(Parts(http=True, queues=()))


@main.command()
@click.option("--queues", help=f"Which queues to work on, separated by commas: {', '.join(names.ALL)}. All by default.")
@click.option("--threads", type=click.IntRange(1, 64), help="Threads of each queue, instead of the setting.")
def actors(queues: str | None, threads: int | None) -> None:
    """Run actors only; HTTP is answered elsewhere."""
    wanted = tuple(name.strip() for name in queues.split(",")) if queues else names.ALL
    unknown = [name for name in wanted if name not in names.ALL]
    if unknown:
        raise click.BadParameter(
            f"no such queue: {', '.join(unknown)}; there are {', '.join(names.ALL)}", param_hint="--queues"
        )
    _run(Parts(http=False, queues=wanted), threads)


def _run(parts: Parts, threads: int | None = None) -> None:
    try:
        settings = load(os.environ)
        if threads:
            settings = _with_threads(settings, threads)
        set_up(settings.log.level, settings.log.format)
        for notice in settings.notices:
            logger.warning(notice)
        run(settings, parts)
    except SettingError as error:
        click.echo(f"tocsin: {error}", err=True)
        sys.exit(_WRONG_USE)
    except TocsinError as error:
        click.echo(f"tocsin: {error}", err=True)
        sys.exit(_FAILED)


def _with_threads(settings: Settings, threads: int) -> Settings:
    return settings.with_values({f"actors.threads.{name}": threads for name in settings.actors.threads})


for command in commands.ALL:
    main.add_command(command)

if __name__ == "__main__":
    main()
