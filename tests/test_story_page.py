"""Every query of docs/story.md answers with the story that it promises, with nothing running but Postgres."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.stored import AT_MS, EVENT, ask, lent, note, routed
from tocsin.domain import ids
from tocsin.domain.event import Event, Recipient
from tocsin.storage.persist import refuse, store

pytestmark = pytest.mark.servers

PAGE: Final = (Path(__file__).parent.parent / "docs" / "story.md").read_text(encoding="utf-8")
QUERIES: Final = {
    " ".join(re.sub(r"\\set .*", "", block).split())[:60]: block
    for block in re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
}
PLAN: Final = (
    (1, "IN_APP", "DELIVERED", None, None, AT_MS),
    (2, "SMS", "QUEUED", None, "+14155550101", AT_MS),
    (3, "EMAIL", "SCHEDULED", None, "asha@example.org", AT_MS + 6_000),
)


@pytest.fixture
def told(postgres_url: str) -> Iterator[None]:
    """A story in which an SMS is told of by its provider, a read stops the mail, and something was refused."""
    with lent(postgres_url):
        person, cancelled = note("asha"), {"reason": "read"}
        sms = {"provider": "twilio", "provider_id": "SM1", "segments": 1}
        store(
            [
                ("1-0", [accepted()]),
                ("2-0", [routed("asha", "mira", steps=PLAN), waits_long("old")]),
                ("3-0", [moved(person, 2, "SMS", "SENT", None, 20, sms)]),
                ("4-0", [receipt(), moved(person, 2, "SMS", "DELIVERED", "delivered", 90, sms)]),
                ("5-0", [{"f": "read", "at": AT_MS + 4_000, "n": [[person, "asha"]]}]),
                ("6-0", [moved(person, 3, "EMAIL", "CANCELLED", None, 4_000, cancelled)]),
                ("7-0", [moved(note("mira"), 2, "SMS", "DEAD", None, 50, {"reason": "timeout", "code": "T"})]),
            ]
        )
        refuse("8-0", [{"f": "?"}], "it makes no sense")
        ask("insert into audit_log (action, actor) values ('key.created', 'admin')")
        yield


def accepted() -> dict[str, Any]:
    event = Event.model_validate(
        {
            "id": EVENT,
            "type": "community.update",
            "source": "api_action",
            "title": "Choir",
            "message": "The choir sings on Monday",
            "metadata": {},
            "channels": ["IN_APP", "SMS", "EMAIL"],
            "asked_strategy": None,
            "strategy": "ESCALATION",
            "priority": "LOW",
            "policy": "demo",
            "steps": [],
            "mandatory": False,
            "sender": "admin",
            "cid": "c1",
            "recipient_count": 2,
            "unknown_ids": [],
            "accepted_ms": AT_MS,
        }
    )
    people = [Recipient(id="asha").model_dump(mode="json"), Recipient(id="mira").model_dump(mode="json")]
    return {"f": "accepted", "event": event.model_dump(mode="json"), "recipients": people, "idempotency": None}


def waits_long(user: str) -> dict[str, Any]:
    """Of an event long ago, a step that never started."""
    event = ids.event_id(1_700_000_000_000, b"9876543210")
    return routed(user, event=event, at_ms=1_700_000_000_000, steps=((1, "EMAIL", "QUEUED", None, "o@example.org", 1),))


def moved(
    notification: str, step: int, channel: str, status: str, word: str | None, after_ms: int, detail: dict[str, Any]
) -> dict[str, Any]:
    return {"f": "moved", "d": [[notification, step, channel, 1, status, word, AT_MS + after_ms, detail]]}


def receipt() -> dict[str, Any]:
    raw = {"MessageSid": "SM1", "MessageStatus": "delivered"}
    return {"f": "callback", "provider": "twilio", "at": AT_MS + 90, "id": "SM1:delivered", "raw": raw, "cid": "c2"}


def runnable(block: str) -> str:
    """The query with this story's values in place of psql's variables, and its clock turned back to the story's day."""
    values = {"event": EVENT, "user": "asha", "notification": note("asha"), "provider_id": "SM1", "cid": "c1"}
    query = re.sub(r"^\\set .*$", "", block, flags=re.MULTILINE)
    query = re.sub(r":'(\w+)'", lambda name: f"'{values[name[1]]}'", query)
    return query.replace("now()", f"to_timestamp({AT_MS + 3_600_000} / 1000.0)")


def test_the_page_has_queries() -> None:
    assert len(QUERIES) > 10


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_a_query_of_the_page_tells_something(query: str, told: None) -> None:
    assert ask(runnable(query))


def test_the_story_of_an_event_is_whole(told: None) -> None:
    block = next(block for block in QUERIES.values() if "from story where event_id" in block)
    happened = [(user, channel, status) for _, user, _, channel, _, status, *_ in ask(runnable(block))]
    assert [(channel, status) for user, channel, status in happened if user == "asha"] == [
        ("IN_APP", "DELIVERED"),
        ("SMS", "QUEUED"),
        ("EMAIL", "SCHEDULED"),
        ("SMS", "SENT"),
        ("SMS", "DELIVERED"),
        ("EMAIL", "CANCELLED"),
    ]
