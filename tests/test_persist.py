"""Facts become rows: in any order, any number of times, by any number of persisters, all of a batch or nothing."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tocsin.domain import ids
from tocsin.domain.errors import PostgresAway
from tocsin.storage import queries
from tocsin.storage.database import Refused
from tocsin.storage.gathered import gather
from tocsin.storage.moments import ms_of
from tocsin.storage.persist import refuse, store
from tocsin.storage.routed import listed
from tocsin.storage.transactions import in_transaction
from tocsin.tests.scenes import an_event, people
from tocsin.tests.stored import (
    AT_MS,
    EVENT,
    IN_APP_AND_EMAIL,
    ask,
    entries,
    eventually,
    lent,
    moved,
    note,
    progress,
    read,
    routed,
)

pytestmark = pytest.mark.servers

STANDING = "select user_id, channel, status, provider from deliveries order by user_id, step"
EVERYTHING = """
select 'd', d::text from deliveries as d union all select 'n', n::text from notifications as n
union all select 'e', e::text from events as e union all select 'c', c::text from callbacks as c order by 1, 2
"""


@pytest.fixture
def connection(postgres_url: str) -> Iterator[Any]:
    with lent(postgres_url) as given:
        yield given


def accepted() -> dict[str, Any]:
    event = an_event(id=EVENT, accepted_ms=AT_MS, unknown_ids=("x1",))
    return {
        "f": "accepted",
        "event": event.model_dump(mode="json"),
        "recipients": [person.model_dump(mode="json", exclude_none=True) for person in people("u1")],
        "idempotency": {"scope": "key:1", "key": "k", "hash": "h", "answer": None},
    }


def callback() -> dict[str, Any]:
    return {"f": "callback", "provider": "twilio", "at": AT_MS, "id": "SM1:sent", "raw": {"a": "ü\\n"}, "cid": "c2"}


STORY = (
    accepted(),
    progress("PROCESSING"),
    routed("u1"),
    moved("u1", "SENDING", {"provider": "smtp"}, at_ms=AT_MS + 10),
    moved("u1", "SENT", {"provider": "smtp", "provider_id": "m\t1\\"}, at_ms=AT_MS + 20),
    {"f": "listed", "e": str(EVENT), "published": True, "n": [[note("u1"), "u1", AT_MS + 7]]},
    read("u1"),
    progress("COMPLETED", at_ms=AT_MS + 30, expected=1),
    {"f": "cancelled", "e": str(EVENT), "at": AT_MS + 40, "reason": "wrong", "by": "admin"},
    callback(),
)


@pytest.mark.parametrize("order", [lambda told: told, reversed, lambda told: [*told[1::2], *told[::2], *told]])
def test_facts_come_in_any_order_and_end_alike(connection: Any, order: Callable[[Any], Any]) -> None:
    for fact in order(STORY):
        store(entries(fact))
    ((event, status, expected, reason, title, at),) = ask(
        "select id, status, expected, cancel_reason, title, accepted_at from events"
    )
    assert (event, status, expected, reason, title) == (EVENT, "COMPLETED", 1, "wrong", "Approved")
    assert ms_of(at) == AT_MS
    assert ask(STANDING) == [("u1", "IN_APP", "DELIVERED", None), ("u1", "EMAIL", "SENT", "smtp")]
    assert ask("select provider_id from deliveries where step = 2") == [("m\t1\\",)]
    (row,) = queries.inbox("u1", 10)
    assert (row.listed_ms, row.read_ms, row.message) == (AT_MS, AT_MS + 900, "Your event has been approved")


def test_a_journal_written_before_plans_were_shared_is_stored_alike() -> None:
    fact = routed("u1", "u2")
    told = [[note(user), user, AT_MS, list(IN_APP_AND_EMAIL)] for user in ("u1", "u2")]
    earlier = {name: value for name, value in fact.items() if name != "plans"} | {"n": told}
    assert gather(entries(earlier)) == gather(entries(fact))
    assert list(listed(earlier)) == list(listed(fact)) == [("u1", note("u1"), AT_MS), ("u2", note("u2"), AT_MS)]


def test_a_batch_told_again_changes_nothing_not_even_a_version_of_a_row(connection: Any) -> None:
    batch = entries(*STORY)
    store(batch)
    once, versions = (
        ask(EVERYTHING),
        ask("select xmin::text from deliveries union all select xmin::text from notifications"),
    )
    store(batch)
    for fact in STORY:
        store(entries(fact))
    assert ask(EVERYTHING) == once
    assert versions == ask("select xmin::text from deliveries union all select xmin::text from notifications")


def test_a_batch_ends_as_its_facts_one_by_one(connection: Any) -> None:
    for fact in STORY:
        store(entries(fact))
    one_by_one = ask(EVERYTHING)
    ask("truncate events, notifications, deliveries, callbacks")
    store(entries(*STORY))
    assert ask(EVERYTHING) == one_by_one


def test_a_read_does_not_wait_for_the_disk_and_nothing_else_does_so(connection: Any) -> None:
    """Until the drain has stored it for good the journal has it (docs/adr/0015)."""

    def waits() -> str:
        ((setting,),) = ask("show synchronous_commit")
        return str(setting)

    def reading() -> str:
        assert queries.read_now("u1", [ids.notification_id(EVENT, "u1")], AT_MS + 5)
        return waits()

    store(entries(accepted(), routed("u1")))
    assert in_transaction(reading) == "off"
    assert waits() == "on"


def test_a_read_before_the_routing_is_stored_is_kept(connection: Any) -> None:
    assert queries.read_now("u1", [ids.notification_id(EVENT, "u1")], AT_MS + 5) == [ids.notification_id(EVENT, "u1")]
    assert queries.read_now("u1", [ids.notification_id(EVENT, "u1")], AT_MS + 6) == []
    store(entries(accepted(), routed("u1")))
    assert queries.read_times("u1", [ids.notification_id(EVENT, "u1")]) == {ids.notification_id(EVENT, "u1"): AT_MS + 5}
    assert queries.unread_count("u1") == 0


def test_a_receipt_before_the_routing_makes_a_row_that_the_routing_fills_in(connection: Any) -> None:
    store(entries(moved("u1", "DELIVERED", {"provider": "twilio"}, word="delivered")))
    assert ask("select event_id, user_id, status, provider_status from deliveries") == [
        (None, None, "DELIVERED", "delivered")
    ]
    store(entries(routed("u1")))
    assert ask("select event_id, user_id, status, provider_status, address from deliveries where step = 2") == [
        (EVENT, "u1", "DELIVERED", "delivered", "a@example.org")
    ]


def test_new_rows_and_known_ones_come_in_one_batch(connection: Any) -> None:
    store(entries(routed("u1")))
    store(entries(routed("u2"), moved("u1", "SENT", {"provider": "smtp"})))
    assert [(user, status) for user, channel, status, _ in ask(STANDING) if channel == "EMAIL"] == [
        ("u1", "SENT"),
        ("u2", "QUEUED"),
    ]


def test_rows_that_are_there_in_part_are_filled_in_though_the_others_are_new(connection: Any) -> None:
    store(entries(read("u1"), moved("u2", "SENT", {"provider": "smtp"})))
    store(entries(routed("u1", "u2", "u3")))
    assert ask("select user_id, event_id is not null, read_at is not null from notifications order by 1") == [
        ("u1", True, True),
        ("u2", True, False),
        ("u3", True, False),
    ]
    assert [(user, status) for user, channel, status, _ in ask(STANDING) if channel == "EMAIL"] == [
        ("u1", "QUEUED"),
        ("u2", "SENT"),
        ("u3", "QUEUED"),
    ]


def test_an_event_that_failed_in_part_stays_failed(connection: Any) -> None:
    store(entries(progress("FAILED", error="KeyError"), progress("PROCESSING")))
    store(entries(accepted(), progress("COMPLETED", expected=3)))
    assert ask("select status, error, expected, title is not null from events") == [("FAILED", "KeyError", 3, True)]


def test_two_tellings_of_a_withdrawal_settle_on_the_earlier(connection: Any) -> None:
    told = [
        {"f": "cancelled", "e": str(EVENT), "at": AT_MS + at, "reason": why, "by": "a"}
        for at, why in ((5, "b"), (5, "a"), (9, "0"))
    ]
    for fact in told:
        store(entries(fact))
    assert ask("select cancel_reason from events") == [("a",)]


# Data that cannot be stored.

BAD = {
    "nul": moved("u9", "FAILED", {"message": "a\0b"}),
    "half a pair": moved("u9", "FAILED", {"message": "\ud800"}),
    "a status that is none": moved("u9", "GONE"),
    "a time that is none": moved("u9", "SENT", at_ms=10**18),
    "a time past all calendars": routed("u9", at_ms=10**17),
    "no uuid": {"f": "moved", "d": [["n1", 2, "EMAIL", 1, "SENT", None, AT_MS, {}]]},
    "too large a number": moved("u9", "SENT", {"segments": 2**40}),
    "too long a provider id": moved("u9", "SENT", {"provider_id": "".join(chr(0x4E00 + n) for n in range(9000))}),
    "nothing known": {"f": "forgotten"},
    "nothing at all": {},
    "nul in a callback": {**callback(), "raw": {"a": "\0"}},
}


def test_bad_facts_are_refused_and_nothing_of_their_batch_is_stored(connection: Any) -> None:
    for name, fact in BAD.items():
        with pytest.raises(Refused) as refusal:
            store(entries(routed("u1"), fact))
        assert ask(EVERYTHING) == [], name
        assert "u9" not in str(refusal.value)
    store(entries(routed("u1")))
    assert len(ask(STANDING)) == 2


def test_halving_finds_the_one_bad_entry_and_it_is_kept_as_it_came(connection: Any) -> None:
    for name, fact in BAD.items():
        ask("truncate deliveries, bad_facts")
        told = [moved(f"good{number}", "SENT") for number in range(13)]
        told.insert(5, fact)
        _store_by_halves([(f"7-{number}", [each]) for number, each in enumerate(told)])
        assert ask("select count(*) from deliveries") == [(13,)], name
        assert ask("select count(*) from bad_facts") == [(1,)], name
        ((entry, kept, why),) = ask("select entry_id, facts, why from bad_facts")
        assert (entry, json.loads(bytes(kept))) == ("7-5", [fact])
        assert why


def test_a_refused_entry_is_kept_once(connection: Any) -> None:
    refuse("7-1", [BAD["nul"]], "why \0")
    refuse("7-1", [BAD["nul"]], "why")
    assert ask("select entry_id, why from bad_facts") == [("7-1", "why ")]


def _store_by_halves(batch: list[tuple[str, list[dict[str, Any]]]]) -> None:
    """As actors/persist.py does."""
    try:
        store(batch)
    except Refused as refusal:
        if len(batch) == 1:
            refuse(*batch[0], str(refusal))
            return
        middle = len(batch) // 2
        _store_by_halves(batch[:middle])
        _store_by_halves(batch[middle:])


# Many at once, and ends that nobody planned.


def test_persisters_that_work_on_the_same_rows_lose_and_double_nothing(connection: Any, postgres_url: str) -> None:
    users = [f"u{number}" for number in range(40)]
    told = [routed(*users)]
    for attempt in range(1, 4):
        told += [moved(user, "SENDING", {"provider": "smtp"}, attempt=attempt, at_ms=AT_MS + attempt) for user in users]
        told += [moved(user, "FAILED", {"code": "4"}, attempt=attempt, at_ms=AT_MS + 9 + attempt) for user in users]
    told += [read(*users), *(moved(user, "DELIVERED", word="delivered", attempt=2) for user in users)]
    store(entries(*told))
    expected = ask(EVERYTHING)
    ask("truncate deliveries, notifications")
    start = threading.Barrier(4)

    def persister(number: int) -> None:
        with lent(postgres_url):
            start.wait(10)
            for first in range(number * 7, len(told), 14):
                store(entries(*reversed(told[first : first + 20])))
            store(entries(*told[number::4]))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(persister, range(4)))
    assert ask(EVERYTHING) == expected


def test_a_deadlock_is_tried_again(connection: Any, postgres_url: str) -> None:
    store(entries(routed("u1", "u2")))
    ask("set deadlock_timeout = '20ms'")
    first, second = sorted([note("u1"), note("u2")])
    met = threading.Barrier(2)
    tries = []

    def touch(*order: str) -> None:
        tries.append(order)
        for number, identifier in enumerate(order):
            ask("update notifications set cid = cid where id = %s", identifier)
            if number == 0 and len(tries) <= 2:
                met.wait(10)

    def other() -> None:
        with lent(postgres_url):
            in_transaction(lambda: touch(second, first))

    thread = threading.Thread(target=other)
    thread.start()
    in_transaction(lambda: touch(first, second))
    thread.join(10)
    assert len(tries) >= 3


def test_a_persister_killed_in_its_transaction_leaves_nothing_half_done(connection: Any, postgres_url: str) -> None:
    def persister() -> None:
        with lent(postgres_url):
            store(entries(*STORY))

    with ThreadPoolExecutor(1) as threads:
        # The last thing that a batch writes are its callbacks: it waits for them with everything else written.
        ask("begin")
        ask("lock table callbacks")
        storing = threads.submit(persister)
        ((victim,),) = eventually(
            lambda: ask("select pid from pg_locks where relation = 'callbacks'::regclass and not granted")
        )
        ask("select pg_terminate_backend(%s)", victim)
        with pytest.raises(PostgresAway):
            storing.result(10)
        ask("rollback")
    assert ask(EVERYTHING) == []
    store(entries(*STORY))
    assert len(ask(EVERYTHING)) == 5
