"""People as they are stored: every change counts a version up, a device is one person's, who is deleted is gone."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from tocsin.domain.errors import NotFound
from tocsin.domain.event import Contact
from tocsin.storage import users
from tocsin.tests.stored import ask, lent

pytestmark = pytest.mark.servers


@pytest.fixture(autouse=True)
def connection(postgres_url: str) -> Iterator[Any]:
    with lent(postgres_url) as given:
        yield given


def test_a_person_is_stored_whole_and_what_is_left_out_is_cleared() -> None:
    first = users.put_user(
        "u1", email="a@example.org", phone="+14155550123", name="Ä", locale="de", timezone="Europe/Berlin"
    )
    assert first == Contact(
        id="u1", email="a@example.org", phone="+14155550123", name="Ä", locale="de", timezone="Europe/Berlin",
        version=first.version,
    )  # fmt: skip
    second = users.put_user("u1", phone="+14155550124", active=False)
    assert (second.email, second.phone, second.active) == (None, "+14155550124", False)
    assert second.version > first.version
    assert users.get_user("u1") == second
    assert users.get_user("u2") is None


def test_every_change_counts_the_version_up() -> None:
    versions = [users.put_user("u1").version]
    device = users.put_device("u1", "token-1").device
    versions.append(_contact("u1").version)
    versions.append(users.put_preferences("u1", ["SMS"]).version)
    users.delete_device("u1", device.id)
    versions.append(_contact("u1").version)
    users.put_device("u1", "token-2")
    users.delete_tokens("u1", ["token-2", "token-3"])
    versions.append(_contact("u1").version)
    users.delete_user("u1")
    versions.append(users.put_user("u1").version)
    assert versions == sorted(set(versions))


def test_what_changes_nothing_leaves_the_version() -> None:
    version = users.put_user("u1").version
    assert not users.delete_device("u1", uuid4())
    assert users.delete_tokens("u1", ["none"]) == 0
    assert users.delete_tokens("u1", []) == 0
    assert _contact("u1").version == version


def test_a_token_leaves_whoever_had_it_before() -> None:
    users.put_user("u1")
    users.put_user("u2")
    first = users.put_device("u1", "token-1")
    again = users.put_device("u1", "token-1")
    moved = users.put_device("u2", "token-1")
    assert (first.changed, again.changed, moved.changed) == (("u1",), ("u1",), ("u1", "u2"))
    assert (_contact("u1").tokens, _contact("u2").tokens) == ((), ("token-1",))
    assert not users.delete_device("u1", moved.device.id)
    assert [device.token for device in users.list_devices("u2")] == ["token-1"]


def test_a_device_of_nobody_is_not_stored() -> None:
    with pytest.raises(NotFound):
        users.put_device("u9", "token-1")
    assert ask("select * from devices") == []


def test_preferences_are_kept_of_people_who_are_known_only_inline() -> None:
    assert users.get_preferences("u1") == ()
    users.put_preferences("u1", ["SMS", "EMAIL@event.approval", "SMS"])
    assert users.get_preferences("u1") == ("EMAIL@event.approval", "SMS")
    assert users.known(["u1"]) == set()
    assert [contact.opt_outs for contact in users.contacts(["u1", "u2"])] == [("EMAIL@event.approval", "SMS")]


def test_contacts_come_in_the_order_asked_for_and_strangers_are_left_out() -> None:
    for user in ("b", "a", "C"):
        users.put_user(user)
    assert [contact.id for contact in users.contacts(["C", "x", "a", "b"])] == ["C", "a", "b"]
    assert users.known(["a", "x"]) == {"a"}
    assert users.known([]) == set()
    assert users.contacts([]) == []


def test_people_are_listed_page_by_page() -> None:
    for number in range(7):
        users.put_user(f"u{number}")
    pages, after = [], ""
    while page := users.list_users(3, after):
        pages.append([contact.id for contact in page])
        after = page[-1].id
    assert pages == [["u0", "u1", "u2"], ["u3", "u4", "u5"], ["u6"]]


def test_only_those_who_switched_something_off_are_mirrored_page_by_page() -> None:
    for number in range(5):
        users.put_preferences(f"u{number}", ["SMS"] if number != 2 else [])
    first = users.all_opt_outs("", 3)
    assert [contact.id for contact in first] == ["u0", "u1", "u3"]
    assert [contact.id for contact in users.all_opt_outs("u3", 3)] == ["u4"]


def test_a_deleted_person_is_gone_with_devices_and_preferences() -> None:
    users.put_user("u1", email="a@example.org")
    users.put_device("u1", "token-1")
    users.put_preferences("u1", ["SMS"])
    assert users.delete_user("u1")
    assert not users.delete_user("u1")
    assert users.contacts(["u1"]) == []
    assert ask("select user_id from devices union all select user_id from preferences") == []


def test_many_are_imported_at_once_and_again() -> None:
    users.put_user("u1", email="old@example.org", name="Old")
    imported = users.import_users(
        [{"id": "u2"}, {"id": "u1", "email": "a@example.org"}, {"id": "u1", "email": "b@example.org"}]
    )
    assert [(contact.id, contact.email, contact.name) for contact in users.contacts(imported)] == [
        ("u1", "b@example.org", None),
        ("u2", None, None),
    ]
    assert users.import_users([]) == []
    many = users.contacts(users.import_users({"id": f"m{n}"} for n in range(2500)))
    assert len({contact.version for contact in many}) == 2500


def _contact(user: str) -> Contact:
    (contact,) = users.contacts([user])
    return contact
