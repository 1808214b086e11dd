"""The schema comes about once, however many processes bring it about, and is what models.py says."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from peewee import Model

from tocsin.domain.errors import PostgresAway
from tocsin.storage import migrate as migrating
from tocsin.storage import models, transactions
from tocsin.storage.migrate import migrate, pending
from tocsin.tests.stored import ask, lent

pytestmark = pytest.mark.servers

NAMES = sorted(each.name for each in files("tocsin.storage.migrations").iterdir() if each.name.endswith(".sql"))


@pytest.fixture
def empty_url(postgres_url: str) -> str:
    """A database without a schema."""
    with lent(postgres_url):
        ask("drop schema public cascade")
        ask("create schema public")
    return postgres_url


def test_many_at_once_apply_each_step_once(empty_url: str) -> None:
    assert pending(empty_url) == NAMES
    with ThreadPoolExecutor(4) as threads:
        applied = list(threads.map(migrate, [empty_url] * 4))
    assert sorted(applied) == [[], [], [], NAMES]
    assert pending(empty_url) == []
    assert migrate(empty_url) == []


def test_a_step_that_fails_leaves_nothing_behind(empty_url: str, tmp_path: Path) -> None:
    (tmp_path / "0001_good.sql").write_text("create table good (id integer)")
    (tmp_path / "0002_bad.sql").write_text("create table bad (id nothing)")
    with pytest.raises(psycopg2.Error):
        migrate(empty_url, tmp_path)
    (tmp_path / "0002_bad.sql").write_text("create table better (id integer)")
    assert migrate(empty_url, tmp_path) == ["0001_good.sql", "0002_bad.sql"]


def test_a_step_waits_not_for_long_for_a_table_that_others_use_and_is_tried_again(
    empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "0001_good.sql").write_text("create table good (id integer)")
    migrate(empty_url, tmp_path)
    (tmp_path / "0002_better.sql").write_text("alter table good add column name text")
    monkeypatch.setattr(migrating, "_PATIENCE_MS", 20)
    with closing(psycopg2.connect(empty_url)) as reader, reader.cursor() as query:
        query.execute("select from good")
        monkeypatch.setattr(migrating, "_PAUSES_S", ())
        with pytest.raises(PostgresAway, match="pg_stat_activity shows whose transactions"):
            migrate(empty_url, tmp_path)
        monkeypatch.setattr(migrating, "_PAUSES_S", (0.0,))
        monkeypatch.setattr(transactions.time, "sleep", lambda _: reader.rollback())
        assert migrate(empty_url, tmp_path) == ["0002_better.sql"]


def test_a_step_that_this_program_does_not_know_is_left_alone(postgres_url: str) -> None:
    with lent(postgres_url):
        ask("insert into schema_migrations (name) values ('9999_of_a_newer_program.sql')")
    assert migrate(postgres_url) == []


def test_a_server_that_is_not_there_is_away() -> None:
    with pytest.raises(PostgresAway):
        migrate("postgresql://tocsin@127.0.0.1:1/tocsin")


@pytest.mark.parametrize("model", models.Row.__subclasses__(), ids=lambda model: str(model.__name__))
def test_a_model_says_what_its_table_is(postgres_url: str, model: type[Model]) -> None:
    with lent(postgres_url):
        table = model._meta.table_name
        found = ask(
            "select column_name, is_nullable = 'YES', data_type from information_schema.columns where table_name = %s",
            table,
        )
    said = {(field.column_name, field.null, _TYPES[field.field_type]) for field in model._meta.sorted_fields}
    assert said == set(found)


_TYPES: dict[str, Any] = {
    "TEXT": "text",
    "UUID": "uuid",
    "BOOL": "boolean",
    "INT": "integer",
    "BIGINT": "bigint",
    "JSONB": "jsonb",
    "TIMESTAMPTZ": "timestamp with time zone",
}
