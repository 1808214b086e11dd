"""Entries of the journal that cannot be stored: they are kept, are tried again, and hold up no other."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from tests.scenes import an_event, routed
from tests.stored import ask, open_store, read_times
from tocsin.actors.persist import Persister
from tocsin.domain.delivery import Channel
from tocsin.domain.plan import Step
from tocsin.storage import bad_facts as bad_facts_kept
from tocsin.storage import persist as writer
from tocsin.storage.by import By
from tocsin.storage.facts import Entry
from tocsin.storage.store import Store

pytestmark = pytest.mark.servers

NOW = Step(Channel.IN_APP, 0)


@pytest.fixture
async def store(redis_url: str, postgres_url: str) -> AsyncIterator[Store]:
    async with open_store(redis_url, postgres_url) as made:
        yield made


async def bad_facts(store: Store) -> list[tuple[str, str]]:
    """(facts, why) of what is kept as bad."""

    def look() -> list[tuple[str, str]]:
        return [(kept.tobytes().decode(), why) for kept, why in ask("select facts, why from bad_facts order by 1")]

    return await store.postgres.call(look)


async def test_an_entry_that_meets_a_defect_holds_no_other_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    events = [an_event(NOW) for _ in range(5)]
    routings = [(await routed(store.flights, event, f"u{n}"))[0] for n, event in enumerate(events)]
    write = writer.store

    def defective(entries: Sequence[Entry], **how: Any) -> None:
        if str(routings[2].id) in str(entries):
            raise AssertionError("a defect")
        write(entries, **how)

    monkeypatch.setattr(writer, "store", defective)
    await Persister(store, "one").drain()
    stored = [bool(await read_times(store, each.user, [each.id])) for each in routings]
    assert stored == [True, True, False, True, True]
    assert await store.facts.length() == 1
    monkeypatch.undo()
    await store.facts.give_back("one")
    await Persister(store, "one").drain()
    assert await read_times(store, "u2", [routings[2].id])


async def test_an_entry_that_cannot_be_read_is_kept_as_bad_and_holds_no_other_back(store: Store) -> None:
    client: Any = store._client
    for fields in ({"d": '[{"f":'}, {"d": "7"}, {"x": "y"}):
        await client.xadd("tocsin:facts", fields)
    (made,) = await routed(store.flights, an_event(NOW), "u1")
    await Persister(store, "one").drain()
    assert await read_times(store, "u1", [made.id])
    assert await store.facts.length() == 0
    assert len(await bad_facts(store)) == 3


async def test_an_entry_that_meets_a_defect_each_time_is_kept_as_bad_in_the_end(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defective(entries: Sequence[Entry], **_: Any) -> None:
        raise AssertionError("a defect")

    monkeypatch.setattr(writer, "store", defective)
    (made,) = await routed(store.flights, an_event(NOW), "u1")
    entries, rounds = await store.facts.length(), 0
    while await store.facts.length():
        await Persister(store, "one").drain()
        await store.facts.give_back("one")
        rounds += 1
    kept = await bad_facts(store)
    assert (rounds, len(kept)) == (5, entries)
    assert any(str(made.id) in facts for facts, _ in kept)
    assert await store.facts.drained(0)


async def test_a_key_of_somebody_else_under_a_lists_name_stops_nobody(store: Store) -> None:
    client: Any = store._client
    await client.set("notifications:u1", "not ours")
    event = an_event(NOW, recipient_count=2)
    mine, others = await routed(store.flights, event, "u1", "u2")
    assert await store.lists.entries("u1") == []
    await Persister(store, "one").drain()
    assert await store.facts.length() == 0
    assert await read_times(store, "u1", [mine.id])
    assert await read_times(store, "u2", [others.id])
    assert await client.get("notifications:u1") == "not ours"


async def test_what_could_not_be_stored_is_listed_and_tried_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(entries: Sequence[Entry], **_: Any) -> None:
        raise writer.Refused("a reason")

    (made,) = await routed(store.flights, an_event(NOW), "u1")
    with monkeypatch.context() as patch:
        patch.setattr(writer, "store", refusing)
        await Persister(store, "one").drain()
    kept = await store.postgres.call(bad_facts_kept.listed, 100)
    assert {each.why for each in kept} == {"a reason"}
    assert any("routed" in each.kinds for each in kept)
    by = By("tests", "cid-1")
    assert await store.retry_bad_facts((kept[0].id,), by) == (1, len(kept) - 1)
    assert await store.retry_bad_facts(None, by) == (len(kept) - 1, 0)
    await Persister(store, "one").drain()
    assert await read_times(store, "u1", [made.id])
    assert await bad_facts(store) == []
    assert await store.retry_bad_facts(None, by) == (0, 0)
