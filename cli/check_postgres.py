"""The doctor looks at Postgres: does it answer, has it the schema, and how old are the API keys in it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from tocsin.cli.findings import SECRETS_AFTER_DAYS, Finding, Level, age_of_secret, clock, fail, ok, stop, warn
from tocsin.domain.errors import PostgresAway
from tocsin.domain.periods import Period
from tocsin.storage import partitions
from tocsin.storage.migrate import OLDEST, pending
from tocsin.storage.postgres_check import PostgresState, inspect_postgres


async def check_postgres(url: str, period: Period) -> tuple[list[Finding], str | None]:
    """The findings about the Postgres at `url`, and whose data it has (storage/installation.py)."""
    try:
        state = await asyncio.to_thread(inspect_postgres, url)
        missing = await asyncio.to_thread(pending, url)
    except PostgresAway as away:
        return [fail("postgres", str(away), "Start it, or mend postgres.url (DATABASE_URL).")], None
    return list(judge_postgres(state, missing, time.time_ns() // 1_000_000, period)), state.installation


def judge_postgres(
    state: PostgresState, missing: list[str], now_ms: int, period: Period = Period.MONTH
) -> Iterator[Finding]:
    """What is right and wrong with a Postgres in this state; `missing` are the migrations that it lacks."""
    yield ok("postgres", f"PostgreSQL {state.version} answers")
    if state.major < OLDEST:
        yield stop("postgres", f"PostgreSQL {state.version} is too old", f"Give one from {OLDEST} on.")
    if not state.writable:
        yield fail("postgres", "it is read-only", "Point postgres.url at the primary.")
    if missing:
        yield fail("postgres", f"the schema lacks {', '.join(missing)}", "Run `tocsin migrate`, or start Tocsin.")
    else:
        yield ok("postgres", "the schema is up to date")
    yield from _judge_partitions(state, now_ms, period)
    yield clock("postgres", "Postgres", state.clock_off_ms)
    if state.bad_facts:
        yield warn(
            "postgres",
            f"{state.bad_facts} facts were refused as data",
            "`tocsin bad-facts list` says why; `tocsin bad-facts retry` tries them again once that is mended.",
        )
    ages = [age_of_secret(f"API key {name!r}", since_ms, now_ms) for name, since_ms in state.keys]
    old = [age for age in ages if age.level is Level.WARN]
    yield from old
    if ages and not old:
        yield ok("secrets", f"no API key is older than {SECRETS_AFTER_DAYS} days ({len(ages)} in use)")


def _judge_partitions(state: PostgresState, now_ms: int, period: Period) -> Iterator[Finding]:
    """Whether rows of now and of soon have a partition of their time."""
    lacking = [f"{table} of {span.name}" for table, span in partitions.missing(state.partitions, period, now_ms)]
    if lacking:
        yield warn(
            "postgres",
            f"no partition yet for {', '.join(lacking)}: such rows lie in the default one",
            "Run `tocsin migrate`, or start Tocsin; who runs actors makes them every hour.",
        )
    if state.strays:
        yield warn(
            "postgres",
            f"{state.strays} rows lie in a default partition, for their time has none of its own",
            "Those of a time to come move when its partition is made; older ones go with `tocsin partitions drop`.",
        )
