"""What every start looks at: a server that Tocsin cannot work with stops it, whatever else is wrong is said.

A server that is away is looked at no further; the parts say so themselves, and wait for it.
"""

from __future__ import annotations

from collections.abc import Iterable

from loguru import logger

from tocsin.cli.check_postgres import check_postgres
from tocsin.cli.check_redis import check_redis
from tocsin.cli.findings import Finding, Level
from tocsin.domain.errors import SettingError
from tocsin.domain.settings import Settings

_SERVERS = {"redis", "postgres"}


async def check_start(settings: Settings) -> None:
    """Says what is wrong with the servers. Raises SettingError where Tocsin could not work with one."""
    assert settings.redis.url is not None  # noqa: S101  # `servers` gave every process one
    assert settings.postgres.url is not None  # noqa: S101
    of_postgres, installation = await check_postgres(settings.postgres.url, settings.postgres.partition)
    of_redis = await check_redis(settings, settings.redis.url, installation)
    say([*of_postgres, *of_redis])


def say(findings: Iterable[Finding]) -> None:
    """One log line for each that is wrong. Raises SettingError for those with which nothing would work."""
    wrong = [finding for finding in findings if finding.subject in _SERVERS and finding.level is not Level.OK]
    for finding in wrong:
        if not finding.stops:
            level = "ERROR" if finding.level is Level.FAIL else "WARNING"
            logger.log(level, "{}: {}. {}", finding.subject, finding.told, finding.mend)
    if stopping := [finding for finding in wrong if finding.stops]:
        raise SettingError("\n".join(f"{each.subject}.url: {each.told}; {each.mend}" for each in stopping))
