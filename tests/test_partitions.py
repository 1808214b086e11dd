"""Rows lie in partitions by the time of their event: those that are near are there, and what has none is served too."""

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg2
import pytest
from click.testing import CliRunner

from tocsin.app import main
from tocsin.domain import ids
from tocsin.domain.errors import Conflict
from tocsin.domain.periods import AHEAD, Period, Span, left_of, spans
from tocsin.storage import dropping, partitions, transactions
from tocsin.storage.accepted import Accepted, store_accepted
from tocsin.storage.by import By
from tocsin.storage.database import cursor
from tocsin.storage.migrate import migrate
from tocsin.storage.persist import store
from tocsin.storage.reentry import reenter
from tocsin.tests.scenes import an_event, people
from tocsin.tests.stored import ask, entries, eventually, lent, note, read, routed

DAY_MS = 86_400_000
NOW_MS = round(datetime(2026, 11, 21, 15, 30, tzinfo=UTC).timestamp() * 1000)
NEXT_YEAR_MS = round(datetime(2027, 6, 15, tzinfo=UTC).timestamp() * 1000)

servers = pytest.mark.servers


def at(*date: int) -> int:
    return round(datetime(*date, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc,arg-type]


def test_spans_follow_each_other_without_a_gap() -> None:
    for period in Period:
        found = list(spans(period, NOW_MS))
        assert len(found) == AHEAD[period] + 1
        assert found[0].start_ms <= NOW_MS < found[0].end_ms
        assert all(one.end_ms == other.start_ms for one, other in pairwise(found))
        assert found[-1].end_ms - NOW_MS >= 7 * DAY_MS
        assert len({span.name for span in found}) == len(found)


def test_a_name_tells_the_span() -> None:
    assert next(spans(Period.DAY, NOW_MS)) == Span("2026_11_21", at(2026, 11, 21), at(2026, 11, 22))
    assert next(spans(Period.WEEK, NOW_MS)) == Span("2026_w47", at(2026, 11, 16), at(2026, 11, 23))
    assert [span.name for span in spans(Period.MONTH, NOW_MS)] == ["2026_11", "2026_12", "2027_01"]
    # The last days of a year may be of the next one's first week.
    assert next(spans(Period.WEEK, at(2024, 12, 31))).name == "2025_w01"


def test_what_is_taken_is_left_out() -> None:
    november = next(spans(Period.MONTH, NOW_MS))
    assert list(left_of(november, [])) == [november]
    assert list(left_of(november, [(0, november.end_ms)])) == []
    found = list(left_of(november, [(0, at(2026, 11, 3)), (at(2026, 11, 8), at(2026, 11, 9))]))
    assert [span.name for span in found] == ["2026_11_03_to_2026_11_08", "2026_11_09_to_2026_12_01"]
    assert (found[0].start_ms, found[1].end_ms) == (at(2026, 11, 3), at(2026, 12, 1))


@pytest.fixture
def connection(postgres_url: str) -> Iterator[Any]:
    with lent(postgres_url) as given:
        yield given


def event_at(ms: int) -> UUID:
    return ids.event_id(ms, b"0123456789")


def where(table: str, event: UUID) -> set[str]:
    """The partitions that an event's rows are in."""
    return {name for (name,) in ask(f"select tableoid::regclass::text from {table} where event_id = %s", str(event))}


def made(period: Period, now_ms: int, most: int | None = None) -> dict[str, int]:
    """What making ahead makes, with the rows moved."""
    with cursor() as query:
        return {each.name: each.moved for each in partitions.make_ahead(query, period, now_ms, most=most)}


def known() -> list[partitions.Partition]:
    with cursor() as query:
        return partitions.partitions(query)


@servers
def test_a_partition_is_made_for_what_the_default_one_has_already(connection: Any) -> None:
    event = event_at(NEXT_YEAR_MS)
    store(entries(routed("u1", "u2", event=event, at_ms=NEXT_YEAR_MS)))
    assert where("deliveries", event) == {"deliveries_default"}
    before = ask("select * from deliveries order by id")
    assert made(Period.MONTH, NEXT_YEAR_MS, most=3) == {
        **{f"deliveries_2027_0{month}": 0 for month in (7, 8)},
        "notifications_2027_06": 2,
        "notifications_2027_07": 0,
        "notifications_2027_08": 0,
    }, "the four deliveries are too many for who has little time"
    assert where("deliveries", event) == {"deliveries_default"}
    assert made(Period.MONTH, NEXT_YEAR_MS) == {"deliveries_2027_06": 4}
    assert where("deliveries", event) == {"deliveries_2027_06"}
    assert where("notifications", event) == {"notifications_2027_06"}
    assert ask("select * from deliveries order by id") == before
    # They are merged where they are now.
    store(entries(routed("u1", "u3", event=event, at_ms=NEXT_YEAR_MS)))
    assert ask("select count(*) from deliveries_2027_06") == [(6,)]
    assert ask("select count(*) from deliveries_default") == [(0,)]


@servers
def test_another_period_begins_where_the_last_one_ends(connection: Any) -> None:
    made(Period.MONTH, NEXT_YEAR_MS)
    # The last month that was made is August.
    found = made(Period.WEEK, at(2027, 8, 20))
    assert set(found) == {
        f"{table}_{name}"
        for table in partitions.TABLES
        for name in ("2027_09_01_to_2027_09_06", "2027_w36")
    }  # fmt: skip
    assert made(Period.WEEK, at(2027, 8, 20)) == {}


@servers
def test_what_postgres_is_told_of_each_partition_is_told_of_all(connection: Any) -> None:
    ask("alter table deliveries_default reset (fillfactor, autovacuum_freeze_min_age)")
    made(Period.MONTH, NEXT_YEAR_MS)
    for each in known():
        assert set(each.options) == {f"{name}={value}" for name, value in partitions.STORAGE[each.table].items()}


@servers
def test_processes_make_what_is_missing_one_at_a_time(connection: Any, postgres_url: str) -> None:
    with closing(psycopg2.connect(postgres_url)) as other, other.cursor() as query:
        query.execute("select pg_advisory_lock(%s)", (partitions.LOCK,))
        assert partitions.tend(Period.MONTH, NEXT_YEAR_MS) == []
    assert len(eventually(lambda: partitions.tend(Period.MONTH, NEXT_YEAR_MS))) == 6
    assert partitions.tend(Period.MONTH, NEXT_YEAR_MS) == []


@servers
def test_who_reads_the_whole_table_is_not_waited_for_and_never_blocks_in_a_circle(
    connection: Any, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "_PATIENCE_MS", 300)
    monkeypatch.setattr(partitions, "_PAUSES_S", ())
    with closing(psycopg2.connect(postgres_url)) as reader, reader.cursor() as query:
        # As who is planning to read has it, before it comes to the default partition.
        query.execute("lock table only notifications, only deliveries in access share mode")
        assert len(made(Period.MONTH, NEXT_YEAR_MS)) == 6
        query.execute("select count(*) from deliveries")


@servers
def test_what_others_hold_is_tried_again_and_nobody_waits_behind_for_long(
    connection: Any, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "_PATIENCE_MS", 20)
    event = event_at(NEXT_YEAR_MS)
    store(entries(routed("u1", event=event, at_ms=NEXT_YEAR_MS)))
    with closing(psycopg2.connect(postgres_url)) as reader, reader.cursor() as query:
        query.execute("lock table only deliveries_default in access share mode")
        monkeypatch.setattr(partitions, "_PAUSES_S", ())
        with pytest.raises(psycopg2.errors.LockNotAvailable):
            made(Period.MONTH, NEXT_YEAR_MS)
        assert where("deliveries", event) == {"deliveries_default"}
        monkeypatch.setattr(partitions, "_PAUSES_S", (0.0,))
        monkeypatch.setattr(transactions.time, "sleep", lambda _: reader.rollback())
        made(Period.MONTH, NEXT_YEAR_MS)
    assert where("deliveries", event) == {"deliveries_2027_06"}


@servers
def test_rows_of_before_are_kept_as_the_first_partition(postgres_url: str, tmp_path: Path) -> None:
    """Those of a later month lie where their partition takes them from."""
    now_ms = ask_now(postgres_url)
    old, later = event_at(now_ms - 90 * DAY_MS), event_at(now_ms + 40 * DAY_MS)
    steps = files("tocsin.storage.migrations")
    for name in (each.name for each in steps.iterdir() if each.name.endswith(".sql")):
        if name < "0012":
            (tmp_path / name).write_text(steps.joinpath(name).read_text())
    with lent(postgres_url):
        ask("drop schema public cascade")
        ask("create schema public")
        migrate(postgres_url, tmp_path)
        for event in (old, later):
            store(entries(routed("u1", "u2", event=event), read("u1")))
        before = {table: ask(f"select * from {table} order by id") for table in partitions.TABLES}
        file = ask("select pg_relation_filenode('deliveries')")
        assert migrate(postgres_url)[0] == "0012_partitions.sql"
        assert {table: ask(f"select * from {table} order by id") for table in partitions.TABLES} == before
        (first,) = (each for each in known() if each.table == "deliveries" and each.start_ms == 0 and each.end_ms)
        assert where("deliveries", old) == {first.name}
        assert ask("select pg_relation_filenode(%s)", first.name) == file, "nothing is written again"
        assert len(where("deliveries", later)) == 1
        assert where("deliveries", later) != {"deliveries_default"}
        store_accepted([Accepted(an_event(id=old), people("u1", "u2"))])
        assert ask("select count(*) from story where notification_id = %s", note("u1", old)) == [(2,)]
        indexes = "select count(*) from pg_index where indrelid = %s::regclass and indisvalid"
        assert len({ask(indexes, each.name)[0] for each in known() if each.table == "deliveries"}) == 1


def ask_now(url: str) -> int:
    with lent(url):
        return now()


def now() -> int:
    return int(ask("select (extract(epoch from now()) * 1000)::bigint")[0][0])


def old_rows(now_ms: int) -> tuple[UUID, UUID]:
    """An event in a partition of long ago, and one of which nobody knows but by two rows in the default partition."""
    old, older = event_at(now_ms - 100 * DAY_MS), event_at(now_ms - 400 * DAY_MS)
    with cursor() as query:
        partitions.make_ahead(query, Period.DAY, now_ms - 100 * DAY_MS)
    store(entries(routed("u1", "u2", event=old, steps=DELIVERED), routed("u1", event=older, steps=DELIVERED)))
    return old, older


DELIVERED = ((1, "IN_APP", "DELIVERED", None, None, 1), (2, "SMS", "SUPPRESSED", "no_address", None, 1))


@servers
def test_what_is_of_long_ago_is_dropped(connection: Any, postgres_url: str) -> None:
    now_ms = now()
    old, _ = old_rows(now_ms)
    before = len(known())
    found = dropping.old(postgres_url, now_ms - 99 * DAY_MS)
    assert [each.table for each in found.partitions] == ["deliveries", "notifications"]
    assert found.strays == {"deliveries": 2, "notifications": 1}
    assert where("deliveries", old) == {found.partitions[0].name}
    dropping.drop(postgres_url, now_ms - 99 * DAY_MS, "ops")
    assert len(known()) == before - 2
    assert ask("select count(*) from deliveries") == ask("select count(*) from notifications") == [(0,)]
    assert ask("select actor, detail ->> 'partition' from audit_log where action = 'partitions.dropped'") == [
        ("ops", each.name) for each in found.partitions
    ]
    # Its counts stay, and a late receipt is stored all the same.
    assert ask("select sum(difference) from count_changes where event_id = %s and channel <> ''", str(old)) == [(4,)]
    store(entries(routed("u1", event=old)))
    assert where("deliveries", old) == {"deliveries_default"}


@servers
def test_what_is_not_final_is_not_dropped(connection: Any, postgres_url: str) -> None:
    now_ms = now()
    old, _ = old_rows(now_ms)
    store(entries(routed("u3", event=old)))
    with pytest.raises(Conflict, match="1 deliveries and 0 events"):
        dropping.drop(postgres_url, now_ms - 99 * DAY_MS, "ops")
    assert len(where("deliveries", old)) == 1
    # What is of later does not hinder it.
    dropping.drop(postgres_url, now_ms - 101 * DAY_MS, "ops")
    assert len(where("deliveries", old)) == 1


@servers
def test_an_event_whose_rows_were_dropped_is_not_entered_again(connection: Any, postgres_url: str) -> None:
    now_ms = now()
    old, _ = old_rows(now_ms)
    store_accepted([Accepted(an_event(id=old), people("u1", "u2"))])
    ask("update events set status = 'FAILED' where id = %s", str(old))
    dropping.drop(postgres_url, now_ms - 99 * DAY_MS, "ops")
    assert reenter(old, By("ops", "c1"), lambda _: "entered") == "skipped"


@servers
def test_commands_list_and_drop_them(connection: Any, postgres_url: str) -> None:
    old_rows(now())

    def run(*arguments: str, status: int = 0) -> Any:
        done = CliRunner().invoke(main, ["partitions", *arguments, "--json"], env={"DATABASE_URL": postgres_url})
        assert done.exit_code == status, done.output
        return json.loads(done.stdout)

    before = datetime.fromtimestamp(NOW_MS / 1000 - 40 * 86_400, UTC).strftime("%Y-%m-%d")
    listed = {each["name"]: each for each in run("list")["data"]}
    assert listed["deliveries_default"]["from"] is None
    days = [each for each in listed.values() if each["name"].startswith("deliveries_2") and each["to"] <= before]
    assert len(days) == AHEAD[Period.DAY] + 1
    assert run("drop", "--before", before, status=1)["dropped"] is False
    assert len(run("list")["data"]) == len(listed)
    assert run("drop", "--before", before, "--yes")["dropped"] is True
    assert len(run("list")["data"]) == len(listed) - 2 * len(days)
    late = CliRunner().invoke(main, ["partitions", "drop", "--before", "2999-01-01"])
    assert late.exit_code == 2
