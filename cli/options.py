"""What commands have in common: where the server is, which key to show it, tables or JSON, and how errors end them.

The exit status is 0, 1 for what was asked for and failed, and 2 for wrong use.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Concatenate, Final

import click

from tocsin.cli.screen import Screen, plain
from tocsin.cli.server import Refused, Server, is_loopback
from tocsin.domain.errors import SettingError, TocsinError
from tocsin.domain.settings import Settings, load

FAILED: Final = 1
KEY_FILE: Final = "admin_key"
"""The file in data.dir in which `tocsin serve` keeps the admin key that it made itself."""

_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}  # noqa: S104  # read, never listened on

as_json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document, for programs.")


def with_server(command: Callable[Concatenate[Server, Screen, ...], Awaitable[int | None]]) -> Callable[..., None]:
    """A command that speaks with a server. It gains --url, --key and --json; what it returns is the exit status."""

    @click.option("--url", envvar="TOCSIN_URL", show_envvar=True, help="The server; by default that of the settings.")
    @click.option(
        "--key",
        envvar="TOCSIN_KEY",
        show_envvar=True,
        help="The API key; by default TOCSIN_ADMIN_KEY, or the file admin_key in data.dir.",
    )
    @as_json_option
    @functools.wraps(command)
    def run(*, url: str | None, key: str | None, as_json: bool, **given: Any) -> None:
        async def speak() -> int | None:
            async with find_server(url, key) as server:
                return await command(server, screen, **given)

        screen = Screen(as_json=as_json)
        finish(screen, speak())

    return run


def finish(screen: Screen, work: Awaitable[int | None]) -> None:
    """Runs a command's work and ends the program with its status. With --json a problem is shown as its document."""

    async def run() -> int | None:
        return await work

    try:
        status = asyncio.run(run())
    except Refused as refused:
        if screen.as_json:
            click.echo(json.dumps(refused.document, indent=2, ensure_ascii=False))
        raise click.ClickException(plain(refused.message)) from refused
    except TocsinError as error:
        raise click.ClickException(plain(str(error))) from error
    if status:
        raise click.exceptions.Exit(status)


def find_server(url: str | None, key: str | None) -> Server:
    """The server at `url` with `key`, or those of the settings. Raises SettingError, and UsageError without a key."""
    settings: Settings | None = None
    if url is None or key is None:
        try:
            settings = load(os.environ)
        except SettingError:
            # Settings of this machine need not be right to speak with a server elsewhere.
            if url is None:
                raise
    if url is None:
        assert settings is not None  # noqa: S101  # loaded above, or raised
        url = own_address(settings)
    return Server(url, key or (_known_key(settings, url) if settings else None))


def own_address(settings: Settings) -> str:
    """Where the server of these settings answers on this machine."""
    host = settings.http.host
    host = _EVERYWHERE.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{settings.http.port}"


def _known_key(settings: Settings, url: str) -> str | None:
    """The admin key of the settings, or the one that a server here made. That one stays on this machine: a server
    elsewhere has another, and must not learn ours."""
    if settings.auth.admin_key:
        return settings.auth.admin_key
    if url != own_address(settings) and not is_loopback(url):
        return None
    try:
        return Path(settings.data.dir, KEY_FILE).read_text("ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def settings_here() -> Settings:
    """The settings of this machine. Raises ClickException that names the wrong one and the mend."""
    try:
        return load(os.environ)
    except SettingError as error:
        raise click.ClickException(str(error)) from error
