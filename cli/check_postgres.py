"""The doctor looks at Postgres: does it answer, has it the schema, and how old are the API keys in it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from tocsin.cli.findings import SECRETS_AFTER_DAYS, Finding, Level, age_of_secret, clock, fail, ok, warn
from tocsin.domain.errors import PostgresAway
from tocsin.storage.migrate import pending
from tocsin.storage.postgres_check import PostgresState, inspect_postgres


async def check_postgres(url: str) -> tuple[list[Finding], str | None]:
    """The findings about the Postgres at `url`, and whose data it has (storage/installation.py)."""
    try:
        state = await asyncio.to_thread(inspect_postgres, url)
        missing = await asyncio.to_thread(pending, url)
    except PostgresAway as away:
        return [fail("postgres", str(away), "Start it, or mend postgres.url (DATABASE_URL).")], None
    return list(judge_postgres(state, missing, time.time_ns() // 1_000_000)), state.installation


def judge_postgres(state: PostgresState, missing: list[str], now_ms: int) -> Iterator[Finding]:
    """What is right and wrong with a Postgres in this state; `missing` are the migrations that it lacks."""
    yield ok("postgres", f"PostgreSQL {state.version} answers")
    if not state.writable:
        yield fail("postgres", "it is read-only", "Point postgres.url at the primary.")
    if missing:
        yield fail("postgres", f"the schema lacks {', '.join(missing)}", "Run `tocsin migrate`, or start Tocsin.")
    else:
        yield ok("postgres", "the schema is up to date")
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
