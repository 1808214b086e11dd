"""Accepted events share a commit; one that cannot be stored fails alone; a key is done once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tocsin.domain.errors import KeyMismatch, TocsinError
from tocsin.domain.event import Event
from tocsin.storage import idempotency, queries
from tocsin.storage.accepted import Accepted, Idempotency, Stored, store_accepted
from tocsin.storage.database import Refused
from tocsin.storage.persist import store
from tocsin.tests.scenes import an_event, people
from tocsin.tests.stored import EVENT, ask, entries, lent, progress

pytestmark = pytest.mark.servers


@pytest.fixture(autouse=True)
def connection(postgres_url: str) -> Iterator[Any]:
    with lent(postgres_url) as given:
        yield given


def given(event: Event | None = None, key: str | None = None, hashed: str = "h", **details: Any) -> Accepted:
    event = event or an_event(**details)
    return Accepted(event, people("u1", "u2"), Idempotency("key:1", key, hashed, {"a": 1}) if key else None)


def stored() -> set[Any]:
    return {identifier for (identifier,) in ask("select id from events where accepted_at is not null")}


def test_an_event_is_stored_as_it_was_accepted() -> None:
    event = an_event(
        title=None,
        metadata={"a": {"b": [1, None, "ü\\"]}},
        unknown_ids=("x",),
        mandatory=True,
        accepted_ms=1_700_000_000_123,
    )
    assert store_accepted([Accepted(event, people("u1"))]) == [Stored()]
    assert queries.contents([event.id]) == {event.id: event}
    assert queries.unfinished_events(0, 10) == [(event, people("u1"))]


def test_a_batch_is_one_commit() -> None:
    rows = [given() for _ in range(20)]
    assert store_accepted(rows) == [Stored()] * 20
    assert len(ask("select distinct xmin::text from events")) == 1


def test_a_bad_event_does_not_fail_its_neighbours() -> None:
    rows: list[Accepted] = [given() for _ in range(9)]
    rows[3] = given(message="a\0b")
    rows[7] = given(metadata={"a": "\0"})
    rows[8] = given(title="\ud800")
    answers: list[Stored | TocsinError] = store_accepted(rows)
    assert [isinstance(answer, Refused) for answer in answers] == [False] * 3 + [True] + [False] * 3 + [True] * 2
    assert stored() == {row.event.id for row, answer in zip(rows, answers, strict=True) if isinstance(answer, Stored)}


def test_an_event_accepted_again_changes_nothing() -> None:
    row = given()
    store_accepted([row])
    store(entries(progress("COMPLETED")))
    before = ask("select e::text from events as e order by id")
    assert store_accepted([row]) == [Stored()]
    assert store_accepted([given(row.event.model_copy(update={"message": "another"}))]) == [Stored()]
    assert ask("select e::text from events as e order by id") == before


def test_facts_that_came_before_the_event_are_kept() -> None:
    store(entries(progress("COMPLETED", expected=2)))
    store(entries({"f": "cancelled", "e": str(EVENT), "at": 5, "reason": "wrong", "by": "admin"}))
    assert queries.event_row(EVENT) is None
    store_accepted([given(an_event(id=EVENT))])
    row = queries.event_row(EVENT)
    assert row is not None
    assert (row.status, row.expected, row.cancel_reason, row.event.title) == ("COMPLETED", 2, "wrong", "Approved")


def test_a_key_is_done_once_and_its_first_answer_given_again() -> None:
    first = given(key="k")
    assert store_accepted([first]) == [Stored()]
    assert store_accepted([given(key="k")]) == [Stored({"id": str(first.event.id), "a": 1})]
    assert isinstance(store_accepted([given(key="k", hashed="other")])[0], KeyMismatch)
    assert stored() == {first.event.id}


def test_a_commit_whose_answer_was_lost_is_no_repetition() -> None:
    row = given(key="k")
    assert store_accepted([row]) == store_accepted([row]) == [Stored()]


def test_one_key_twice_in_a_batch_is_done_once() -> None:
    first, second, other = given(key="k"), given(key="k"), given(key="k", hashed="other")
    answers = store_accepted([first, second, other, given(key="k2")])
    assert answers[:2] == [Stored(), Stored({"id": str(first.event.id), "a": 1})]
    assert isinstance(answers[2], KeyMismatch)
    assert answers[3] == Stored()


def test_a_key_whose_event_was_refused_is_free() -> None:
    assert isinstance(store_accepted([given(key="k", message="\0")])[0], Refused)
    assert store_accepted([given(key="k")]) == [Stored()]


def test_requests_that_race_with_one_key_are_done_once(postgres_url: str) -> None:
    rows = [given(key="k") for _ in range(4)]

    def post(row: Accepted) -> Any:
        with lent(postgres_url):
            return store_accepted([row])[0]

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(post, rows))
    (first,) = stored()
    assert sorted(answer.replay is None for answer in answers) == [False, False, False, True]
    assert {answer.replay["id"] for answer in answers if answer.replay} == {str(first)}


def test_a_key_holds_for_a_day_and_is_forgotten_after_two() -> None:
    store_accepted([given(key="k")])
    ask("update idempotency set created_at = now() - interval '23 hours'")
    assert store_accepted([given(key="k")])[0] != Stored()
    ask("update idempotency set created_at = now() - interval '25 hours'")
    again = given(key="k", hashed="other")
    assert store_accepted([again]) == [Stored()]
    assert again.event.id in stored()
    assert idempotency.forget_old(10) == 0
    ask("update idempotency set created_at = now() - interval '49 hours'")
    assert idempotency.forget_old(10) == 1


def test_a_key_that_came_with_the_journal_counts_too() -> None:
    row = given(key="k")
    assert row.idempotency is not None
    told = {
        "f": "accepted",
        "event": row.event.model_dump(mode="json"),
        "recipients": [],
        "idempotency": row.idempotency.as_fact(),
    }
    store(entries(told, told))
    store(entries(told))
    assert store_accepted([given(key="k")]) == [Stored({"id": str(row.event.id), "a": 1})]
