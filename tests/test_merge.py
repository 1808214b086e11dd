"""Facts may come in any order and any number of times: Python and SQL end alike (merge.lua: test_merge_in_lua.py)."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tocsin.domain.delivery import (
    RANK,
    WAITING,
    History,
    Status,
    canonical,
    evidence,
    key,
    merge,
    parse_key,
    shown_attempt,
)
from tocsin.domain.event import EventStatus
from tocsin.domain.shown import ShownDelivery, shown
from tocsin.storage.moments import ms_of
from tocsin.storage.persist import store
from tocsin.tests.stored import AT_MS, ask, entries, lent, moved, routed

# What Postgres stores: everything but NUL and halves of surrogate pairs.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
times = st.integers(AT_MS, AT_MS + 3)

facts = st.fixed_dictionaries(
    {"at": times},
    optional={
        "reason": st.sampled_from(["timeout", "rejected", "read"]),
        "provider": st.sampled_from(["smtp", "twilio"]),
        "provider_id": texts,
        "word": texts,
        "code": texts,
        "message": st.one_of(texts, st.just("long " * 200)),
        "price": texts,
        "address": texts,
        "cid": texts,
        "due": times,
        "segments": st.integers(1, 9),
        "attempts": st.integers(1, 5),
    },
)
places = st.builds(
    key,
    st.integers(1, 12),
    st.sampled_from(list(Status)),
    st.one_of(st.none(), st.sampled_from(["sent", "a:b", ":", "é", "Ω", "𝄞"])),
)
# Those of which SQL makes less work (migration 0014) would seldom be met among all.
plain_places = st.sampled_from(["1:SCHEDULED", "1:QUEUED", "1:SENDING", "1:SENT", "1:DELIVERED"])
histories = st.one_of(
    st.dictionaries(places, facts, min_size=1, max_size=7), st.dictionaries(plain_places, facts, min_size=1)
)

sql = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def connection(postgres_url: str) -> Iterator[Any]:
    with lent(postgres_url) as given_connection:
        yield given_connection


@given(st.lists(histories, min_size=1, max_size=4), st.randoms())
def test_shuffled_split_and_doubled_histories_merge_alike(told: list[History], chance: Any) -> None:
    again = [{place: fact} for history in told for place, fact in history.items()] + told
    chance.shuffle(again)
    assert merge(again) == merge(told) == merge([merge(told[:1]), merge(told[1:]), merge(told)])


@given(histories, histories, histories)
def test_merging_is_a_semilattice(one: History, two: History, three: History) -> None:
    assert merge([one, two]) == merge([two, one])
    assert merge([merge([one, two]), three]) == merge([one, merge([two, three])])
    assert merge([one, one]) == one


@given(histories)
def test_the_shown_attempt_is_the_one_with_the_most_evidence(history: History) -> None:
    number, status = shown_attempt(history)
    standing: dict[int, list[Status]] = {}
    for place in history:
        attempt, told, _ = parse_key(place)
        standing.setdefault(attempt, []).append(told)
    best = {attempt: max(told, key=RANK.__getitem__) for attempt, told in standing.items()}
    # What waits though there is a later attempt speaks for nothing.
    spoken = {
        attempt: 0 if attempt < max(best) and told in WAITING else evidence(told) for attempt, told in best.items()
    }
    assert best[number] is status
    assert all((spoken[number], number) >= (speaks, attempt) for attempt, speaks in spoken.items())


def test_an_attempt_whose_end_nobody_knows_any_more_does_not_wait_behind_a_later_one() -> None:
    told = shown({key(1, Status.QUEUED): {"at": 1}, key(2, Status.FAILED): {"at": 2, "code": "550"}})
    assert (told.status, told.error_code) == (Status.FAILED, "550")


def test_a_late_receipt_for_an_uncertain_attempt_wins_over_a_failed_second_one() -> None:
    history: History = {
        key(1, Status.UNCERTAIN): {"at": 1},
        key(2, Status.FAILED): {"at": 2, "code": "550"},
        key(1, Status.DELIVERED, "delivered"): {"at": 9},
    }
    told = shown(history)
    assert (told.status, told.delivered_ms, told.error_code, told.provider_status) == (
        Status.DELIVERED, 9, None, "delivered",
    )  # fmt: skip


def test_what_is_shown_of_a_retry_tells_why_and_until_when() -> None:
    told = shown(
        {
            key(1, Status.QUEUED): {"at": 1},
            key(1, Status.SENDING): {"at": 2, "provider": "twilio", "attempts": 3},
            key(1, Status.FAILED): {"at": 3, "provider": "twilio", "reason": "timeout", "code": "30008"},
            key(2, Status.RETRYING): {"at": 3, "reason": "timeout", "due": 40},
        }
    )
    assert told == ShownDelivery(
        status=Status.RETRYING,
        reason="timeout",
        attempt_count=1,
        max_attempts=3,
        address=None,
        queued_ms=1,
        last_attempted_ms=2,
        next_attempt_ms=40,
        sent_ms=None,
        delivered_ms=None,
        provider=None,
        provider_id=None,
        provider_status=None,
        error_code="30008",
        error_message=None,
        price=None,
        segments=None,
    )


def test_what_came_back_was_sent_and_is_not_delivered() -> None:
    told = shown(
        {key(1, Status.SENT): {"at": 1}, key(1, Status.DELIVERED): {"at": 2}, key(1, Status.BOUNCED): {"at": 3}}
    )
    assert (told.status, told.sent_ms, told.delivered_ms) == (Status.BOUNCED, 1, None)


@pytest.mark.servers
@given(one=histories, other=histories)
@example(one={"1:SENT": {"at": 1, "code": '\u2028\x1f\x7f\\"/'}}, other={"1:SENT": {"at": 1, "code": "\U0001d11e"}})
@example(one={"1:SENT": {"at": 1, "code": "\uffff"}}, other={"1:SENT": {"at": 1, "code": "\U00010000"}})
@sql
def test_sql_merges_as_python_does(connection: Any, one: History, other: History) -> None:
    ((merged, text),) = ask(
        "select tocsin_merge(%s, %s), (%s::jsonb)::text", json.dumps(one), json.dumps(other), json.dumps(one)
    )
    assert merged == merge([one, other])
    for fact in one.values():
        assert canonical(fact) in text


@pytest.mark.servers
@given(history=histories)
@sql
def test_sql_shows_what_python_shows(connection: Any, history: History) -> None:
    (row,) = ask("select * from tocsin_shown(%s)", json.dumps(history))
    assert _shown_of(row) == shown(history)


@pytest.mark.servers
@given(
    history=st.one_of(
        st.dictionaries(st.one_of(places, plain_places), facts, min_size=1, max_size=6),
        st.dictionaries(plain_places, facts, min_size=1),
    ),
    data=st.data(),
)
@settings(sql, max_examples=60)
def test_shuffled_split_and_doubled_facts_are_stored_alike(connection: Any, history: History, data: Any) -> None:
    """The real way: routed and moved facts in entries of any order, split into batches anywhere."""
    ask("truncate deliveries, notifications")
    told = [routed("u1"), *(_moved_of(place, fact) for place, fact in history.items())]
    order = data.draw(st.permutations(told + told[:2]))
    cut = data.draw(st.integers(0, len(order)))
    store(entries(*order[:cut]))
    store(entries(*order[cut:]))
    ((*row, stored, user),) = ask(f"select {_COLUMNS}, history, user_id from deliveries where step = 2")
    whole = merge([history, {key(1, Status.QUEUED): {"at": AT_MS}}])
    expected = shown(whole)
    assert (stored, user) == (whole, "u1")
    address = "a@example.org" if expected.address is None else expected.address
    assert _shown_of(row) == expected._replace(address=address)


@pytest.mark.servers
def test_statuses_rank_in_sql_as_in_python(connection: Any) -> None:
    assert ask("select tocsin_rank(s) from unnest(%s) as s", [str(status) for status in Status]) == [
        (RANK[status] + 1,) for status in Status
    ]
    assert ask("select tocsin_event_rank(s) from unnest(%s) as s", [str(status) for status in EventStatus]) == [
        (1,), (2,), (3,), (4,),
    ]  # fmt: skip


@pytest.mark.servers
@given(ms=st.integers(0, 7_258_118_400_000))
@sql
def test_times_are_exact_to_the_millisecond(connection: Any, ms: int) -> None:
    ((moment,),) = ask("select tocsin_time(%s)", ms)
    assert ms_of(moment) == ms
    assert moment.microsecond % 1000 == 0


_COLUMNS = (
    "status, reason, attempt_count, max_attempts, address, queued_at, last_attempted_at, next_attempt_at, sent_at,"
    " delivered_at, provider, provider_id, provider_status, error_code, error_message, price, segments"
)


def _shown_of(row: Any) -> ShownDelivery:
    status, reason, count, most, address, *rest = row
    times_ms = [ms_of(moment) for moment in rest[:5]]
    return ShownDelivery(Status(status), reason, count, most, address, *times_ms, *rest[5:])


def _moved_of(place: str, fact: dict[str, Any]) -> dict[str, Any]:
    attempt, status, word = parse_key(place)
    detail = {name: value for name, value in fact.items() if name != "at"}
    return moved("u1", status, detail, attempt=attempt, at_ms=fact["at"], word=word)
