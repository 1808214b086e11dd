"""The statements of the program against as many rows in truth: `python -m tests.plans.run [--deliveries 5000000]`.

Fills a Postgres of its own, which takes some minutes and a gigabyte a million deliveries, and names what reads a large
table through or costs too much.
"""

import tempfile
import time
from pathlib import Path

import click

from tests.plans.asked import Statement, recording
from tests.plans.asking import ask_everything
from tests.plans.judged import faults, idle_indexes
from tests.plans.plan import large_tables, plan_of
from tests.plans.rows import analyze, fill
from tocsin.storage.embedded_postgres import EmbeddedPostgres
from tocsin.storage.migrate import migrate
from tocsin.tests.stored import lent


@click.command()
@click.option("--deliveries", default=5_000_000, show_default=True)
def main(*, deliveries: int) -> None:
    """Fills, asks and judges; ends with 1 where something is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedPostgres(Path(folder))
        try:
            url = server.start()
            migrate(url)
            wrong = _judge(url, deliveries)
        finally:
            server.stop()
    raise SystemExit(1 if wrong else 0)


def _judge(url: str, deliveries: int) -> int:
    with lent(url) as connection, connection.cursor() as query:
        query.execute("set statement_timeout = 0; set synchronous_commit = off")
        began_s = time.monotonic()
        fill(query, deliveries)
        analyze(query)
        click.echo(f"filled in {time.monotonic() - began_s:.0f} s")
        began_s = time.monotonic()
        with recording(connection) as asked:
            ask_everything()
        click.echo(f"asked {len(asked.statements)} statements in {time.monotonic() - began_s:.1f} s")
        large = large_tables(query)
        plans = [(each, plan_of(query, each.text, each.settings)) for each in asked.statements]
        wrong = {(each, fault) for each, plan in plans for fault in faults(each, plan, large)}
        for each, fault in wrong:
            click.echo(f"{_name(each)}: {fault}\n{each.text[:2000]}\n")
        click.echo(f"{len(wrong)} faults; idle indexes: {idle_indexes(query, (plan for _, plan in plans)) or 'none'}")
        return len(wrong)


def _name(statement: Statement) -> str:
    return ", ".join(statement.functions[:3])


if __name__ == "__main__":
    main()
