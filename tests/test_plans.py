"""No statement of the program reads a large table through, and each index serves one of them.

Every function of storage/ that speaks SQL is run on a few rows that Postgres then takes for millions, and each
statement is explained. `python -m tests.plans.run` does the same with as many rows in truth.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import psycopg2
import pytest

from tests.plans.asked import Asked, Statement, functions_that_ask, recording
from tests.plans.asking import ask_everything
from tests.plans.judged import COSTLY, EVERYWHERE, faults, idle_indexes, looks_everywhere
from tests.plans.plan import Plan, large_tables, plan_of
from tests.plans.rows import analyze, believe, fill
from tocsin.tests.stored import lent

pytestmark = pytest.mark.servers

DELIVERIES = 12_000
FACTOR = 420
"""Together five million deliveries."""


@dataclass
class Explained:
    """Everything that was asked, and how Postgres would answer it."""

    connection: Any
    asked: Asked
    large: set[str]
    plans: list[tuple[Statement, Plan]] = field(default_factory=list)


@pytest.fixture(scope="module")
def explained(postgres_server: str) -> Iterator[Explained]:
    with closing(psycopg2.connect(postgres_server)) as connection:
        connection.autocommit = True
        with connection.cursor() as query:
            query.execute("create database plans template template_of_tests strategy file_copy")
            with lent(postgres_server.replace("@/tocsin?", "@/plans?")) as own:
                yield _explained(own)
            query.execute("drop database plans with (force)")


def _explained(connection: Any) -> Explained:
    with connection.cursor() as query:
        fill(query, DELIVERIES)
        analyze(query)
        with recording(connection) as asked:
            ask_everything()
        believe(query, FACTOR)
        found = Explained(connection, asked, large_tables(query))
        for statement in {each.text: each for each in asked.statements}.values():
            found.plans.append((statement, plan_of(query, statement.text, statement.settings)))
        return found


def test_postgres_takes_few_rows_for_millions(explained: Explained) -> None:
    with explained.connection.cursor() as query:
        plan = plan_of(query, "select from deliveries")
        query.execute("select sum(reltuples) from pg_class where relname like 'deliveries\\_2%' and relkind = 'r'")
        assert 4_500_000 < query.fetchone()[0] < 5_500_000
    assert plan.rows > 4_500_000


def test_every_function_that_asks_was_run(explained: Explained) -> None:
    assert functions_that_ask() - explained.asked.functions == set(), "run it in tests/plans/asked.py"


def test_nothing_reads_a_large_table_through(explained: Explained) -> None:
    wrong = [
        f"{', '.join(statement.functions[:3])}: {fault}\n{statement.text}"
        for statement, plan in explained.plans
        for fault in faults(statement, plan, explained.large)
    ]
    assert wrong == [], "\n\n".join(wrong)


@pytest.mark.parametrize(
    "statement",
    [
        "select * from deliveries where address = 'a@example.org'",
        "select * from deliveries where address = 'a@example.org' limit 1",
        "select * from deliveries where notification_id = '01a1fe15-d079-8f3b-aa11-9bf3e0cdc592'",
        "select * from notifications order by read_at desc limit 10",
        "select count(*) from notifications",
        "update deliveries set price = null where provider = 'smtp'",
        "with those as materialized (select id from notifications where cid = 'c1') select * from those",
        "select * from notifications note join deliveries on deliveries.address = note.cid where note.user_id = 'u1'",
        "select id::text from deliveries where status = 'QUEUED' order by id limit 10",
    ],
)
def test_a_statement_that_does_is_found_out(explained: Explained, statement: str) -> None:
    with explained.connection.cursor() as query:
        plan = plan_of(query, statement)
    assert list(faults(Statement(statement, ("anybody.asks",), ()), plan, explained.large))


def test_what_knows_an_id_looks_into_one_partition(explained: Explained) -> None:
    wrong = {
        statement.functions[0]: statement.text
        for statement, plan in explained.plans
        if looks_everywhere(plan) and not EVERYWHERE.keys() & set(statement.functions)
    }
    assert wrong == {}


def test_every_index_serves_a_statement(explained: Explained) -> None:
    with explained.connection.cursor() as query:
        assert idle_indexes(query, (plan for _, plan in explained.plans)) == set()


def test_what_is_let_pass_is_there(explained: Explained) -> None:
    asked = {name for statement, _ in explained.plans for name in statement.functions}
    assert (COSTLY.keys() | EVERYWHERE.keys()) - asked == set()
