"""`tocsin doctor`: looks at everything that Tocsin stands on and says what to mend."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable

import click
from rich.text import Text

from tocsin.cli.check_breakers import check_breakers
from tocsin.cli.check_channels import check_channels
from tocsin.cli.check_postgres import check_postgres
from tocsin.cli.check_rates import check_rates
from tocsin.cli.check_redis import check_redis
from tocsin.cli.check_secrets import check_secret_files
from tocsin.cli.findings import Finding, Level, fail, ok, warn
from tocsin.cli.options import FAILED, as_json_option, finish
from tocsin.cli.screen import Screen, plain
from tocsin.domain.errors import SettingError
from tocsin.domain.settings import Settings, load
from tocsin.storage import embedded_postgres, embedded_redis

_STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}


@click.command(short_help="Look at all that Tocsin stands on; say what to mend.")
@as_json_option
def doctor(*, as_json: bool) -> None:
    """Look at everything that Tocsin stands on, and say what to mend.

    Logs in to the mail server, Twilio and FCM without sending anything; looks at Postgres, Redis, and the age of
    secrets. Ends with 1 when something failed; a warning is no failure.
    """
    screen = Screen(as_json=as_json)
    finish(screen, _examine(screen))


async def _examine(screen: Screen) -> int | None:
    found: list[Finding] = []
    async for finding in findings():
        found.append(finding)
        screen.tell(_line(finding))
    failed = sum(finding.level is Level.FAIL for finding in found)
    warned = sum(finding.level is Level.WARN for finding in found)
    screen.tell()
    screen.tell(f"{len(found) - failed - warned} ok, {warned} to look at, {failed} failed", style="bold")
    screen.answer(
        {
            "ok": not failed,
            "findings": [
                {"level": each.level, "subject": each.subject, "told": each.told, "mend": each.mend or None}
                for each in found
            ],
        }
    )
    return FAILED if failed else None


async def findings() -> AsyncIterator[Finding]:
    """Everything that is found, as it is found."""
    try:
        settings = load(os.environ)
    except SettingError as error:
        for line in str(error).splitlines():
            told, _, mend = line.partition("; ")
            yield fail("settings", told, mend)
        return
    yield ok("settings", "every setting is known and right")
    for notice in settings.notices:
        yield warn("settings", notice, "")
    of_postgres, installation = await _look_at_postgres(settings)
    for finding in of_postgres:
        yield finding
    for finding in await _look_at_redis(settings, installation):
        yield finding
    async for finding in check_channels(settings):
        yield finding
    for finding in check_secret_files(os.environ, settings.data.dir, time.time_ns() // 1_000_000):
        yield finding


async def _look_at_postgres(settings: Settings) -> tuple[list[Finding], str | None]:
    url = settings.postgres.url or await asyncio.to_thread(embedded_postgres.running_address, settings.data.dir)
    if url is None:
        return await asyncio.to_thread(_own, "postgres", embedded_postgres.runnable), None
    return await check_postgres(url, settings.postgres.partition)


async def _look_at_redis(settings: Settings, installation: str | None) -> list[Finding]:
    url = settings.redis.url or await asyncio.to_thread(embedded_redis.running_address, settings.data.dir)
    if url is None:
        return await asyncio.to_thread(_own, "redis", embedded_redis.runnable)
    breakers = await check_breakers(settings.redis, url)
    rates = await check_rates(settings, url)
    return [*await check_redis(settings, url, installation), *breakers, *rates]


def _own(subject: str, runnable: Callable[[], str]) -> list[Finding]:
    """The finding about a server of our own that does not run now."""
    try:
        return [ok(subject, f"not running now; `tocsin serve` runs its own: {runnable()}")]
    except SettingError as error:
        told, _, mend = str(error).partition("; ")
        return [fail(subject, told, mend)]


def _line(finding: Finding) -> Text:
    line = Text.assemble(
        (f"{finding.level:<5}", _STYLES[finding.level]), (f"{finding.subject:<10}", "bold"), plain(finding.told)
    )
    if finding.mend:
        line.append(f"\n{'':15}{plain(finding.mend)}", style="dim")
    return line
