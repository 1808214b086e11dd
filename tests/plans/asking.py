"""Runs each function of storage/ that speaks SQL, once and more, as the program does."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from tests.plans.asking_people import ask_groups, ask_people
from tocsin.domain import ids
from tocsin.domain.settings import load
from tocsin.storage import (
    bad_facts,
    cancellations,
    completed,
    counts,
    dead_letters,
    discards,
    event_keys,
    idempotency,
    installation,
    keyring,
    ledger,
    lives,
    look_ups,
    merging,
    partitions,
    persist,
    provider_ledger,
    queries,
    rebuild_queries,
    receipts,
    reconciliations,
    reentry,
    replays,
)
from tocsin.storage.accepted import Accepted, Idempotency, store_accepted
from tocsin.storage.by import By
from tocsin.storage.cancellations import Cancellation, Wanted
from tocsin.storage.database import cursor, database
from tocsin.storage.dead_letters import LetterFilter
from tocsin.storage.facts import Entry
from tocsin.storage.queries import DeliveryFilter
from tocsin.tests.scenes import an_event, people
from tocsin.tests.stored import ask, routed

BY: Final = By("ops", "c1")


def ask_everything() -> None:
    """Runs everything once and more, each part by itself, as the program does."""
    for part in (_events, _stopping, _inbox, _deliveries, _letters, _persisting, _rebuilding, _reconciling, _providers,
                 ask_people, ask_groups, _operations):  # fmt: skip
        part()


def _some(table: str, condition: str = "true", count: int = 100) -> list[UUID]:
    return [UUID(str(found)) for (found,) in ask(f"select id from {table} where {condition} limit {count}")]


def _now_ms() -> int:
    return round(datetime.now(UTC).timestamp() * 1000)


def _events() -> None:
    known = _some("events", "accepted_at is not null")
    event = an_event(id=ids.event_id(_now_ms(), uuid4().bytes[:10]), accepted_ms=_now_ms())
    for _ in range(2):
        store_accepted([Accepted(event, people("u1", "u2"), Idempotency("shop", f"key-{event.id}", "hash", {}))])
    queries.event_audit(known[0])
    queries.recent_events(50, known[50])
    queries.recent_events(50)
    queries.recent_events(50, known[50], "order:1")
    queries.unfinished_events(5_000, 200, started=False)
    queries.unfinished_events(5_000, 200, event)
    queries.still_unfinished(known)
    queries.withdrawn(known)
    queries.contents(known)
    queries.given_inline([(event.id, "u1"), (known[0], "u2")])
    completed.completed(None, _now_ms(), _now_ms() - 3_600_000, 100)
    completed.completed((_now_ms() - 60_000, str(known[0])), _now_ms(), 0, 100)
    completed.made(known[:20])
    partitions.known()
    for mend in (False, True):
        counts.miscounted(known[1:20], mend=mend)
    counts.sum_up(50)
    counts.sum_up(50_000)


def _stopping() -> None:
    known = _some("events", "status = 'COMPLETED'")[0]
    asked = Cancellation(uuid4(), _now_ms(), "ops", "c1", "wrong", Wanted((known,)), place="rows")
    cancellations.begin(asked, 0)
    cancellations.take(30_000)
    cancellations.keep(asked, 0)
    cancellations.filters()
    cancellations.ended([asked.id])
    cancellations.cancellation(asked.id)
    cancellations.cancellations(50)
    cancellations.cancellations(50, (asked.at_ms, asked.id))
    cancellations.forget_old(90, 5_000)
    nothing = str(UUID(int=0))
    for wanted in (Wanted(type="event.approval"), Wanted(user="u1", to_ms=_now_ms())):
        cancellations.unfinished(wanted, nothing, 100)
        cancellations.waiting_events(wanted, nothing, 100)
        cancellations.waiting(wanted, nothing, 1_000)
    cancellations.waiting(asked.wanted, nothing, 1_000, known)
    for number, signature in enumerate(("v1", "v1", "v2")):
        event = an_event(id=ids.event_id(_now_ms(), uuid4().bytes[:10]), event_key="order:1", signature=signature)
        row = Accepted(event, people("u1"), Idempotency("shop", f"keyed {number}", "hash", {}))
        event_keys.store_keyed(row, _now_ms(), may_replace=True)
    event_keys.holder_of("order:1")
    event_keys.holder_of("order:1", event_keys.Holder(known, "v1"))
    event_keys.recent(86_400_000, "", 1_000)
    event_keys.forget_keys(5_000)


def _inbox() -> None:
    notes = _some("notifications", "listed_at is not null")
    for unread_only in (False, True):
        queries.inbox("u1", 50, unread_only=unread_only)
        queries.inbox("u1", 50, (_now_ms(), notes[0]), unread_only=unread_only)
    queries.unread_count("u1")
    queries.unread_count("u1", notes)
    queries.unread_ids("u1", 1_000)
    queries.owner_of(notes)
    queries.read_times("u1", notes)
    queries.read_now("u1", [*notes[:3], uuid4()], _now_ms())


def _deliveries() -> None:
    note = _some("notifications", "event_id is not null")[0]
    (delivery,) = _some("deliveries", count=1)
    queries.delivery(delivery)
    queries.history_of(delivery)
    queries.delivery_status(note)
    queries.journey(note)
    for reference in (str(note), str(delivery), str(_some("events")[0]), "SM0123", str(UUID(int=1))):
        queries.deliveries(DeliveryFilter(reference=reference), 50)
    for status in (None, "SENT", "DELIVERED", "QUEUED", "DEAD", "UNCERTAIN"):
        queries.deliveries(DeliveryFilter(user="u1", status=status), 50)
        queries.deliveries(DeliveryFilter(status=status), 50)
        queries.deliveries(DeliveryFilter(status=status, channel="SMS", before=delivery), 50)
    queries.deliveries(DeliveryFilter(from_ms=_now_ms() - 86_400_000, to_ms=_now_ms()), 50)


def _letters() -> None:
    dead = _some("deliveries", "status = 'DEAD'")
    failed = _some("events", "status = 'FAILED'")
    filters = (
        LetterFilter(),
        LetterFilter(ids=(*dead, *failed)),
        LetterFilter(event=failed[0]),
        LetterFilter(user="u1", before=dead[0]),
        LetterFilter(type="event.approval", channel="EMAIL", from_ms=_now_ms() - 86_400_000, discarded="ALL"),
    )
    for wanted in filters:
        dead_letters.dead_letters(wanted, 50)
        dead_letters.count(wanted, 1_000)
    dead_letters.causes(LetterFilter())
    dead_letters.held_count(1_000)
    discards.discard([*dead[:10], *failed[:2]], "old", BY)
    replays.replay_deliveries(dead, BY, lambda flights, _: ["ready"] * sum(len(each.steps) for each in flights))
    reentry.reenter(failed[-1], BY, lambda _: "entered")


def _persisting() -> None:
    event = ids.event_id(_now_ms(), b"abcdefghij")
    facts: Sequence[dict[str, Any]] = (
        {"f": "accepted", "event": an_event(id=event).model_dump(mode="json"), "recipients": [], "idempotency": {
            "scope": "shop", "key": "from the journal", "hash": "hash", "answer": {}}},
        routed("u1", "u2", event=event),
        {"f": "event", "e": str(event), "at": _now_ms(), "status": "COMPLETED", "expected": 2, "error": None},
        {"f": "read", "at": _now_ms(), "n": [[str(ids.notification_id(event, "u1")), "u1"]]},
        {"f": "callback", "provider": "twilio", "id": "k1", "at": _now_ms(), "cid": None, "raw": {}},
        Cancellation(uuid4(), _now_ms(), "ops", "c1", "wrong", Wanted(type="event.approval")).as_fact(),
    )  # fmt: skip
    entries: list[Entry] = [(f"1-{number}", [fact]) for number, fact in enumerate(facts)]
    for _ in range(2):
        persist.store(entries, epoch="life", patience_ms=1_000)
    persist.refuse("1-9", [facts[0]], "it makes no sense")
    # What a Postgres before 18 is told instead.
    with database.atomic(), cursor() as query:
        for target in (merging.NOTIFICATIONS, merging.DELIVERIES):
            for statement in target.merge.statements(150_000):
                query.execute(statement)
    bad_facts.listed(100)
    bad_facts.kept(None, 100)
    bad_facts.kept(["1-9"], 100)
    ledger.refused(["1-9"])
    bad_facts.forget(["1-9"], BY)
    idempotency.forget_old(5_000)


def _rebuilding() -> None:
    known = _some("events", "accepted_at is not null")
    rebuild_queries.open_deliveries(rebuild_queries.FIRST, 20_000)
    rebuild_queries.open_deliveries(_some("deliveries")[0], 20_000)
    rebuild_queries.unfinished(rebuild_queries.FIRST, 100)
    rebuild_queries.short_of_notifications(_now_ms())
    for stored in rebuild_queries.stored_events(known[:3]):
        rebuild_queries.unrouted(stored)
    life = lives.Rebuilt("other", _now_ms(), "emptied", exact=True, took_ms=1, counts={})
    lives.is_new()
    lives.begin_first("life")
    lives.beat("process", 100, "life")
    lives.seen("process")
    lives.testify("process", "other", complete=True)
    lives.heard("other")
    lives.store_rebuilt(life)
    lives.was("other")
    lives.withdraw("other")
    lives.leave("process")
    lives.forget_silent()


def _reconciling() -> None:
    still_open = [str(each) for each in _some("deliveries", "status = 'QUEUED'")]
    ledger.open_page(None, 1_000)
    ledger.open_page(still_open[0], 1_000)
    ledger.locked(still_open, lease_ms=60_000)
    for look in (ledger.statuses, ledger.cancelled_events, ledger.unwanted):
        look(still_open)
    (found,) = reconciliations.reports(1)
    reconciliations.store(
        reconciliations.Report(
            **{**{name: getattr(found, name) for name in found.__slots__}, "id": uuid4()}  # type: ignore[attr-defined]
        ),
        reconciliations.place(),
        keep_ms=86_400_000,
    )
    reconciliations.report(found.id)
    reconciliations.reports(50, (found.started_ms, found.id))


def _providers() -> None:
    settings = load({}).uncertain
    doubted = _some("deliveries", "status = 'UNCERTAIN'")
    look_ups.due(settings, [("SMS", "twilio"), ("EMAIL", "smtp")], ["SMS"], 100)
    look_ups.rivals(["u1@example.org", "u2@example.org"])
    look_ups.owners([f"SM{number}" for number in range(50)])
    look_ups.keep([look_ups.LookUp(doubted[0], 1, look_ups.Result.FOUND, "twilio")])
    look_ups.answers(None, None, 50)
    look_ups.answers(look_ups.Result.TIE, (1, doubted[0]), 50)
    provider_ledger.duplicates(_now_ms() - 60_000, _now_ms())
    provider_ledger.unconfirmed(3_600_000, 86_400_000)
    provider_ledger.uncertain()
    provider_ledger.days_with_duplicates()
    today = datetime.now(UTC).date()
    receipts.duplicates(_now_ms() - 86_400_000)
    counted = receipts.counted(["smtp", "twilio"], today - timedelta(2), today, 3_600_000)
    receipts.keep([*counted, receipts.ReceiptDay(today, "twilio", 0, 0, 0, 0, 0, 0)])
    receipts.stored(today, today)


def _operations() -> None:
    key = keyring.create_key("shop", "sender", actor="ops").key
    keyring.find_by_hash("hash")
    keyring.list_keys()
    made = keyring.rotate(key.id, actor="ops")
    assert made is not None
    keyring.revoke(made.key.id, actor="ops")
    installation.installation()
