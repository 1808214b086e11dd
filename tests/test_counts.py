"""Counts of events are what counting their rows would tell, at every moment and whatever order facts come in (F4)."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tocsin.domain import ids
from tocsin.domain.delivery import Channel, Status
from tocsin.storage import counting, queries
from tocsin.storage.accepted import Accepted, store_accepted
from tocsin.storage.by import By
from tocsin.storage.connecting import connect
from tocsin.storage.counts import counts_of, miscounted, sum_up
from tocsin.storage.database import Refused
from tocsin.storage.migrate import migrate
from tocsin.storage.persist import store
from tocsin.storage.replays import replay_deliveries
from tocsin.tests.scenes import an_event, people
from tocsin.tests.stored import AT_MS, EVENT, ask, entries, eventually, lent, moved, note, read, routed

pytestmark = pytest.mark.servers

TWIN = ids.event_id(AT_MS, b"9876543210")
"""Another event of the same millisecond."""
USERS = ("u1", "u2", "u3")
IN_APP = (1, "IN_APP", "DELIVERED", None, None, AT_MS)


@pytest.fixture
def connection(postgres_url: str) -> Iterator[Any]:
    with lent(postgres_url) as given_connection:
        yield given_connection


@pytest.fixture(params=["at once", "step by step"])
def merging(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As PostgreSQL 18 merges and as those before it do, which 18 can do too."""
    if request.param == "step by step":
        monkeypatch.setattr(counting, "_TELLS_BOTH", 990_000)


def standing(event: UUID = EVENT) -> Counter[tuple[str, str, str]]:
    """What counting the rows tells."""
    found = Counter({("", "MADE", ""): 0})
    for listed, seen in ask("select listed_at, read_at from notifications where event_id = %s", event):
        found["", "MADE", ""] += 1
        found["", "LISTED", ""] += listed is not None
        found["", "READ", ""] += seen is not None
    for channel, status, reason in ask("select channel, status, reason from deliveries where event_id = %s", event):
        found[channel, status, reason or ""] += 1
    return +found


def counted(event: UUID = EVENT) -> Counter[tuple[str, str, str]]:
    """What the counts tell, summed up or not."""
    rows = ask(
        "select channel, status, reason, sum(count)::integer from (select * from event_counts union all"
        " select * from count_changes) as told where event_id = %s group by 1, 2, 3",
        event,
    )
    return +Counter({(channel, status, reason): count for channel, status, reason, count in rows})


steps = st.sampled_from(
    [
        (IN_APP, (2, "EMAIL", "QUEUED", None, "a@example.org", AT_MS)),
        (IN_APP, (2, "EMAIL", "SUPPRESSED", "opted_out", None, AT_MS)),
        ((2, "EMAIL", "SCHEDULED", None, None, AT_MS),),
    ]
)
somebody = st.sampled_from(USERS)
told_facts = st.one_of(
    st.builds(lambda who, plan: routed(*who, steps=plan), st.lists(somebody, min_size=1, unique=True), steps),
    st.builds(lambda who, plan: routed(who, event=TWIN, steps=plan), somebody, steps),
    st.builds(
        lambda who, status, reason, attempt, at: moved(who, status, reason, attempt=attempt, at_ms=AT_MS + at),
        somebody,
        st.sampled_from(list(Status)),
        st.sampled_from([{}, {"reason": "timeout"}]),
        st.integers(1, 3),
        st.integers(0, 3),
    ),
    st.builds(lambda who: read(*who), st.lists(somebody, min_size=1, unique=True)),
    st.builds(
        lambda who: {"f": "listed", "e": str(EVENT), "published": True, "n": [[note(who), who, AT_MS + 7]]}, somebody
    ),
)


@given(told=st.lists(told_facts, min_size=1, max_size=8), data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.usefixtures("merging")
def test_facts_in_any_order_split_and_doubled_are_counted_as_their_rows_are(
    connection: Any, told: list[dict[str, Any]], data: Any
) -> None:
    ask("truncate deliveries, notifications, event_counts, count_changes")
    order = data.draw(st.permutations(told + told[:3]))
    while order:
        size = data.draw(st.integers(1, len(order)))
        store(entries(*order[:size]))
        order = order[size:]
        sum_up(data.draw(st.integers(0, 4)))
        assert counted() == standing()
    assert counted(TWIN) == standing(TWIN)
    assert miscounted([EVENT, TWIN], mend=False) == {}
    while sum_up(3):
        pass
    assert counted() == standing()
    assert ask("select * from count_changes union all select * from event_counts where count <= 0") == []


@pytest.mark.usefixtures("merging")
def test_persisters_beside_each_other_and_readers_count_each_change_once(connection: Any, postgres_url: str) -> None:
    users = [f"u{number}" for number in range(30)]
    told = [routed(*users[:20]), routed(*users[20:])]
    told += [moved(user, "SENDING", {"provider": "smtp"}, at_ms=AT_MS + 1) for user in users]
    told += [moved(user, "SENT" if number % 3 else "FAILED", at_ms=AT_MS + 9) for number, user in enumerate(users)]
    told += [read(*users[:10]), *(moved(user, "DELIVERED", word="delivered") for user in users[:5])]
    start = threading.Barrier(6)

    def persister(number: int) -> None:
        with lent(postgres_url):
            start.wait(10)
            for first in range(number * 5, len(told), 12):
                store(entries(*reversed(told[first : first + 20])))
            store(entries(*told[number::4]))

    def reader() -> None:
        with lent(postgres_url):
            start.wait(10)
            for user in users[5:15]:
                queries.read_now(user, [UUID(note(user))], AT_MS + 500)

    def summing() -> None:
        with lent(postgres_url):
            start.wait(10)
            for _ in range(20):
                sum_up(7)

    with ThreadPoolExecutor(6) as threads:
        working = [threads.submit(persister, number) for number in range(4)]
        working += [threads.submit(reader), threads.submit(summing)]
        for work in working:
            work.result(60)
    counts = counts_of([EVENT])[EVENT]
    assert (counts.notifications, counts.listed, counts.read) == (30, 30, 15)
    assert counts.by_channel["EMAIL"] == {"SENT": 17, "DELIVERED": 5, "FAILED": 8}
    assert counted() == standing()


def test_reading_is_counted_once_be_it_before_or_after_its_event_is_known(connection: Any) -> None:
    store(entries(routed("u1")))
    for _ in range(2):
        queries.read_now("u1", [UUID(note("u1"))], AT_MS + 5)
        queries.read_now("u2", [UUID(note("u2"))], AT_MS + 5)
    assert counted()["", "READ", ""] == 1
    store(entries(routed("u2"), read("u1", "u2")))
    assert counted() == standing()
    assert counted()["", "READ", ""] == 2


def test_what_is_refused_is_not_counted(connection: Any) -> None:
    with pytest.raises(Refused):
        store(entries(routed("u1"), moved("u9", "FAILED", {"message": "a\0b"})))
    assert counted() == Counter()


def test_a_dead_letter_that_is_replayed_waits_again(connection: Any) -> None:
    store(entries(routed("u1"), moved("u1", "DEAD", {"reason": "timeout"})))
    store_accepted([Accepted(an_event(id=EVENT), people("u1"))])
    assert counted()["EMAIL", "DEAD", "timeout"] == 1
    done = replay_deliveries(
        [ids.delivery_id(UUID(note("u1")), 2, Channel.EMAIL)], By("admin", "c1"), lambda flights, events: ["restored"]
    )
    assert len(done.replayed) == 1
    assert counted() == standing()
    assert counted()["EMAIL", "RETRYING", "replayed"] == 1


def test_rows_that_were_there_before_are_counted_by_the_migration(connection: Any, postgres_url: str) -> None:
    steps = (IN_APP, (2, "EMAIL", "SUPPRESSED", "opted_out", None, AT_MS))
    store(entries(routed("u1", "u2"), routed("u1", event=TWIN, steps=steps), read("u1"), moved("u5", "SENT")))
    expected = [counted(), counted(TWIN)]
    ask("drop table event_counts, count_changes")
    ask("delete from schema_migrations where name = '0011_counts.sql'")
    assert migrate(postgres_url) == ["0011_counts.sql"]
    assert [counted(), counted(TWIN)] == expected == [standing(), standing(TWIN)]


def test_counts_that_somebody_made_wrong_are_found_and_mended_once(connection: Any) -> None:
    store(entries(routed("u1", "u2"), routed("u1", event=TWIN)))
    ask("update deliveries set status = 'SENT' where event_id = %s and channel = 'EMAIL'", EVENT)
    ask("delete from notifications where event_id = %s and user_id = 'u2'", EVENT)
    assert miscounted([EVENT, TWIN], mend=False) == {EVENT: 2 + 2 + 1 + 1}
    assert miscounted([EVENT, TWIN], mend=True) == {EVENT: 6}
    assert miscounted([EVENT, TWIN], mend=True) == {}
    assert counted() == standing()
    sum_up(100)
    assert counted() == standing()


def test_one_process_sums_up_at_a_time_and_stops_where_it_is_told_to(connection: Any, postgres_url: str) -> None:
    store(entries(routed("u1"), routed("u1", event=TWIN)))
    assert sum_up(3) == 3
    with closing(connect(postgres_url, connect_timeout_ms=3_000, statement_timeout_ms=3_000)) as other:
        other.cursor().execute("select pg_advisory_lock(hashtextextended('tocsin counts', 0))")
        assert sum_up(100) == 0
    assert eventually(lambda: sum_up(100)) == 5
    assert counted() == standing()
