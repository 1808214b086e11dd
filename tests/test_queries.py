"""What happened can be asked for, in pages and by filter, and nothing is found by reading a whole table."""

import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest

from tocsin.domain import ids
from tocsin.domain.event import Event
from tocsin.storage import queries, users
from tocsin.storage.accepted import Accepted, store_accepted
from tocsin.storage.cancellations import Wanted, waiting
from tocsin.storage.database import database
from tocsin.storage.persist import store
from tocsin.storage.queries import DeliveryFilter
from tocsin.tests.scenes import an_event, people
from tocsin.tests.stored import AT_MS, EVENT, ask, entries, lent, moved, note, progress, read, routed

pytestmark = pytest.mark.servers


@pytest.fixture(autouse=True)
def connection(postgres_url: str) -> Iterator[Any]:
    with lent(postgres_url) as given:
        yield given


def accept(identifier: UUID = EVENT, *, accepted_ms: int = AT_MS, **details: Any) -> Event:
    event = an_event(id=identifier, accepted_ms=accepted_ms, recipient_count=2, **details)
    store_accepted([Accepted(event, people("u1", "u2"))])
    return event


def later(ms: int) -> UUID:
    """The id of an event that began so much later than EVENT."""
    return ids.event_id(AT_MS + ms, b"0123456789")


def user_note(user: str, event: UUID = EVENT) -> UUID:
    return ids.notification_id(event, user)


def test_an_event_is_audited_with_its_counts() -> None:
    event = accept(unknown_ids=("x1",))
    steps = ((1, "IN_APP", "DELIVERED", None, None, AT_MS), (2, "SMS", "SUPPRESSED", "opted_out", None, AT_MS))
    store(entries(routed("u1"), routed("u2", steps=steps), read("u1"), progress("COMPLETED", expected=2)))
    # Another event of the same millisecond is another event.
    twin = ids.event_id(AT_MS, b"9876543210")
    accept(twin)
    store(entries(routed("u1", event=twin)))
    audit = queries.event_audit(EVENT)
    assert audit is not None
    assert audit.row.event == event
    assert (audit.row.status, audit.row.expected) == ("COMPLETED", 2)
    assert (audit.counts.notifications, audit.counts.read) == (2, 1)
    assert audit.counts.deliveries == {"DELIVERED": 2, "QUEUED": 1, "SUPPRESSED": 1}
    assert audit.counts.by_channel["SMS"] == {"SUPPRESSED": 1}
    assert audit.counts.suppressed == {"opted_out": 1}
    assert queries.event_audit(later(5)) is None


def test_events_are_listed_newest_first_page_by_page() -> None:
    made = [accept(later(ms)).id for ms in range(5)]
    first = queries.recent_events(3)
    assert [audit.row.event.id for audit in first] == made[:1:-1]
    assert [audit.row.event.id for audit in queries.recent_events(3, first[-1].row.event.id)] == made[1::-1]


def test_a_journey_tells_everything_in_the_order_of_time() -> None:
    accept()
    store(
        entries(
            routed("u1"),
            moved("u1", "SENDING", {"provider": "smtp"}, at_ms=AT_MS + 1),
            moved("u1", "FAILED", {"code": "450", "reason": "rejected"}, at_ms=AT_MS + 2),
            moved("u1", "RETRYING", {"due": AT_MS + 40}, attempt=2, at_ms=AT_MS + 2),
            moved("u1", "CANCELLED", {"reason": "read"}, attempt=2, at_ms=AT_MS + 900),
            read("u1"),
        )
    )
    journey = queries.journey(user_note("u1"))
    assert journey is not None
    assert [(each.at_ms - AT_MS, each.what, each.channel, each.attempt) for each in journey.happenings] == [
        (0, "ACCEPTED", None, None),
        (0, "LISTED", None, None),
        (0, "DELIVERED", "IN_APP", 1),
        (0, "QUEUED", "EMAIL", 1),
        (1, "SENDING", "EMAIL", 1),
        (2, "FAILED", "EMAIL", 1),
        (2, "RETRYING", "EMAIL", 2),
        (900, "READ", None, None),
        (900, "CANCELLED", "EMAIL", 2),
    ]
    status = queries.delivery_status(user_note("u1"))
    assert status is not None
    assert (status.notification, status.deliveries) == (journey.notification, journey.deliveries)
    assert [(row.channel, row.status, row.error_code) for row in status.deliveries] == [
        ("IN_APP", "DELIVERED", None),
        ("EMAIL", "CANCELLED", "450"),
    ]
    assert queries.journey(user_note("u9")) is queries.delivery_status(user_note("u9")) is None


def test_the_story_can_be_read_by_plain_sql() -> None:
    accept()
    store(entries(routed("u1"), moved("u1", "SENT", {"provider": "smtp"}, word="250")))
    assert ask("select user_id, channel, status, provider_word, provider, now from story order by at, step") == [
        ("u1", "IN_APP", "DELIVERED", None, None, "DELIVERED"),
        ("u1", "EMAIL", "QUEUED", None, None, "SENT"),
        ("u1", "EMAIL", "SENT", "250", "smtp", "SENT"),
    ]


def test_an_inbox_is_paged_newest_first_and_ties_are_told_apart() -> None:
    events = [accept(later(ms), title=f"t{ms}").id for ms in range(6)]
    for place, event in enumerate(events):
        # Two at a time are listed in the same millisecond.
        store(entries(routed("u1", "u2", event=event, at_ms=AT_MS + place // 2)))
    store(entries({"f": "read", "at": AT_MS + 99, "n": [[note("u1", events[4]), "u1"]]}))
    seen, before = [], None
    while page := queries.inbox("u1", 4, before):
        seen += page
        before = (page[-1].listed_ms, page[-1].id)
    order = sorted(seen, key=lambda row: (row.listed_ms, row.id), reverse=True)
    assert seen == order
    assert {row.event_id for row in seen} == set(events)
    unread = queries.inbox("u1", 10, unread_only=True)
    assert [row.id for row in unread] == [row.id for row in seen if row.event_id != events[4]]
    assert queries.unread_ids("u1", 10) == [row.id for row in unread]
    assert queries.unread_count("u1") == 5
    assert queries.unread_count("u3") == 0


def test_what_is_not_listed_is_in_no_inbox() -> None:
    accept()
    fact = routed("u1", steps=((1, "EMAIL", "QUEUED", None, "a@example.org", AT_MS),))
    fact["plans"][0][0] = 0
    store(entries(fact))
    assert (queries.inbox("u1", 5), queries.unread_count("u1")) == ([], 0)


def test_reading_answers_only_what_changed_and_only_of_the_reader() -> None:
    accept()
    store(entries(routed("u1", "u2")))
    mine, theirs = user_note("u1"), user_note("u2")
    assert queries.read_times("u1", [mine, theirs]) == {mine: None}
    assert queries.read_now("u1", [mine, theirs], AT_MS + 5) == [mine]
    assert queries.read_now("u1", [mine], AT_MS + 6) == []
    assert queries.read_times("u1", [mine]) == {mine: AT_MS + 5}
    assert queries.unread_count("u2") == 1
    assert queries.owner_of([mine, theirs, user_note("u9")]) == {mine: "u1", theirs: "u2"}


def test_deliveries_are_found_by_everything_that_names_them() -> None:
    accept()
    accept(later(60_000))
    store(entries(routed("u1", "u2"), routed("u1", event=later(60_000), at_ms=AT_MS + 60_000)))
    store(entries(moved("u1", "SENT", {"provider": "smtp", "provider_id": "0aa65b71-a2b5-4d8c-8c5b-1d9f0c4a7c11"})))

    def found(**given: Any) -> list[tuple[str | None, str, bool]]:
        rows = queries.deliveries(DeliveryFilter(from_ms=0, **given), 10)
        return [(row.user_id, row.channel, row.event_id == EVENT) for row in rows]

    everything = found()
    assert len(everything) == 6
    assert everything[:2] == [("u1", everything[0][1], False), ("u1", everything[1][1], False)]
    assert len(found(user="u1")) == 4
    assert len(found(reference=str(EVENT))) == 4
    assert found(reference=str(EVENT), user="u2", channel="IN_APP") == [("u2", "IN_APP", True)]
    assert len(found(reference=note("u1"))) == 2
    delivery = queries.deliveries(DeliveryFilter(reference=note("u1"), channel="EMAIL"), 10)[0]
    assert found(reference=str(delivery.id)) == [("u1", "EMAIL", True)]
    assert found(reference="0aa65b71-a2b5-4d8c-8c5b-1d9f0c4a7c11") == [("u1", "EMAIL", True)]
    assert found(reference="nothing") == []
    assert found(status="SENT") == [("u1", "EMAIL", True)]
    assert len(found(to_ms=AT_MS + 1)) == 4
    assert len(queries.deliveries(DeliveryFilter(user="u1", from_ms=AT_MS + 1), 10)) == 2
    assert queries.delivery(delivery.id) == delivery
    assert queries.delivery(user_note("u1")) is None


def test_deliveries_are_paged_without_gap_or_repetition() -> None:
    store(entries(routed(*(f"u{number}" for number in range(8)))))
    seen: list[UUID] = []
    while page := queries.deliveries(DeliveryFilter(from_ms=0, before=seen[-1] if seen else None), 5):
        seen += [row.id for row in page]
    assert len(seen) == len(set(seen)) == 16
    assert seen == sorted(seen, reverse=True)


def test_without_a_name_deliveries_are_those_of_a_week() -> None:
    now_ms = time.time_ns() // 1_000_000
    for age_days in (1, 8):
        event = ids.event_id(now_ms - age_days * 86_400_000, b"0123456789")
        store(entries(routed("u1", event=event, at_ms=now_ms)))
    assert len(queries.deliveries(DeliveryFilter(), 10)) == 2
    assert len(queries.deliveries(DeliveryFilter(to_ms=now_ms - 7 * 86_400_000), 10)) == 2
    assert len(queries.deliveries(DeliveryFilter(user="u1"), 10)) == 4


def test_what_still_waits_of_an_event_is_found_page_by_page() -> None:
    store(entries(routed("u1", "u2", "u3"), moved("u2", "SENT")))
    named = Wanted((EVENT,))
    first = waiting(named, str(UUID(int=0)), 1, EVENT)
    assert first.after is not None
    rest = waiting(named, first.after, 2, EVENT)
    assert rest.after is None
    found = first.notifications[EVENT] + rest.notifications[EVENT]
    assert sorted(found) == sorted([user_note("u1"), user_note("u3")])
    assert waiting(Wanted((later(1),)), str(UUID(int=0)), 9, later(1)).notifications == {}


def test_unfinished_events_are_swept_oldest_first_page_by_page() -> None:
    past_ms = 1_700_000_000_000
    made = [accept(ids.event_id(past_ms + n // 2, bytes([n]) * 10), accepted_ms=past_ms + n // 2) for n in range(6)]
    store(
        [
            ("1-0", [{**progress("COMPLETED"), "e": str(made[0].id)}]),
            ("1-1", [{**progress("PROCESSING"), "e": str(made[1].id)}]),
        ]
    )
    store([("1-2", [{"f": "cancelled", "e": str(made[2].id), "at": AT_MS, "reason": "", "by": ""}])])
    accept(later(1), accepted_ms=time.time_ns() // 1_000_000)
    swept: list[Event] = []
    while page := queries.unfinished_events(5_000, 2, swept[-1] if swept else None):
        assert page[0][1] == people("u1", "u2")
        swept += [event for event, _ in page]
    # One that was withdrawn is still to come to its end.
    assert swept == made[1:]
    assert queries.withdrawn([event.id for event in made]) == [made[2].id]


def test_an_event_of_a_process_whose_clock_is_ahead_does_not_wait_for_its_time() -> None:
    ahead_ms = time.time_ns() // 1_000_000 + 600_000
    event = accept(ids.event_id(ahead_ms, bytes(10)), accepted_ms=ahead_ms)
    assert [found for found, _ in queries.unfinished_events(5_000, 10)] == [event]


def test_nothing_is_found_by_reading_a_whole_table() -> None:
    _fill()
    asked: list[tuple[str, Any]] = []
    database.query_hooks.append(lambda query: asked.append((query.sql, query.params)))
    try:
        for question in _QUESTIONS:
            question()
    finally:
        database.query_hooks.clear()
    assert len(asked) > len(_QUESTIONS)
    # The tables are small, so a whole one is read wherever there is a choice: there is to be one.
    ask("set enable_seqscan = off")
    for sql, values in asked:
        plan = "\n".join(line for (line,) in ask(f"explain {sql}", *(values or ())))
        assert "Seq Scan" not in plan, f"{sql}\n{plan}"


def _fill() -> None:
    for number in range(60):
        event = later(number * 1000)
        accept(event)
        store(
            [
                (
                    f"1-{number}",
                    [
                        routed(*(f"u{user}" for user in range(40)), event=event),
                        {**progress("COMPLETED"), "e": str(event)},
                    ],
                )
            ]
        )
    users.import_users({"id": f"u{number}"} for number in range(3000))
    for number in range(300):
        users.put_preferences(f"u{number}", ["SMS"] if number % 7 == 0 else [])
    store(entries(moved("u1", "SENT", {"provider_id": "p1"}), read("u1")))
    ask("analyze")


_QUESTIONS: tuple[Callable[[], Any], ...] = (
    lambda: queries.event_audit(EVENT),
    lambda: queries.recent_events(10, later(20_000)),
    lambda: queries.delivery_status(user_note("u1")),
    lambda: queries.journey(user_note("u1")),
    lambda: queries.inbox("u1", 10, (AT_MS + 9000, user_note("u1"))),
    lambda: queries.inbox("u1", 10, unread_only=True),
    lambda: queries.unread_count("u1"),
    lambda: queries.unread_ids("u1", 10),
    lambda: queries.read_times("u1", [user_note("u1")]),
    lambda: queries.owner_of([user_note("u1")]),
    lambda: queries.unfinished_events(0, 10),
    lambda: queries.withdrawn([EVENT]),
    lambda: queries.contents([EVENT, later(1000)]),
    lambda: queries.deliveries(DeliveryFilter(user="u1"), 10),
    lambda: queries.deliveries(DeliveryFilter(reference=str(EVENT)), 10),
    lambda: queries.deliveries(DeliveryFilter(reference=note("u1")), 10),
    lambda: queries.deliveries(DeliveryFilter(reference="p1"), 10),
    lambda: queries.deliveries(DeliveryFilter(status="FAILED", from_ms=AT_MS + 55_000), 10),
    lambda: users.known(["u1", "u2"]),
    lambda: users.get_user("u1"),
    lambda: users.list_users(10, "u2"),
    lambda: users.all_opt_outs("u1", 10),
    lambda: users.list_devices("u1"),
)
