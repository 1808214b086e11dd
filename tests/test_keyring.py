"""API keys: the secret is shown once and kept nowhere; every change is in the audit log."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from tocsin.domain.errors import Conflict
from tocsin.storage import keyring
from tocsin.storage.audit import audit
from tocsin.tests.stored import ask, lent

pytestmark = pytest.mark.servers


@pytest.fixture(autouse=True)
def connection(postgres_url: str) -> Iterator[Any]:
    with lent(postgres_url) as given:
        yield given


def test_a_key_is_found_by_the_hash_of_its_secret_which_is_kept_nowhere() -> None:
    made = keyring.create_key("shop", "sender", actor="admin", cid="c1")
    assert made.secret.startswith("tk_")
    assert len(made.secret) > 40
    assert keyring.find_by_hash(keyring.hash_of(made.secret)) == made.key
    assert keyring.find_by_hash(keyring.hash_of("tk_another")) is None
    kept = "".join(text for (text,) in ask("select k::text from api_keys k union all select a::text from audit_log a"))
    assert made.secret not in kept


def test_a_name_is_free_again_when_its_key_is_revoked() -> None:
    made = keyring.create_key("shop", "sender", actor="admin")
    with pytest.raises(Conflict):
        keyring.create_key("shop", "viewer", actor="admin")
    revoked = keyring.revoke(made.key.id, actor="admin")
    assert revoked is not None
    assert revoked.revoked_ms is not None
    assert keyring.find_by_hash(made.key.hash) is None
    second = keyring.create_key("shop", "viewer", actor="admin")
    assert keyring.list_keys() == [second.key]
    assert keyring.list_keys(revoked=True) == [revoked, second.key]


def test_revoking_again_changes_nothing_and_nothing_is_no_key() -> None:
    made = keyring.create_key("shop", "sender", actor="admin")
    assert keyring.revoke(made.key.id, actor="a") == keyring.revoke(made.key.id, actor="b")
    assert keyring.revoke(uuid4(), actor="a") is None
    assert ask("select action, actor from audit_log order by id") == [("key.created", "admin"), ("key.revoked", "a")]


def test_a_secret_that_exists_can_be_kept() -> None:
    key = keyring.keep_key("first", "admin", "tk_given-by-the-operator", actor="start")
    assert keyring.find_by_hash(keyring.hash_of("tk_given-by-the-operator")) == key


def test_the_audit_log_tells_who_did_what() -> None:
    audit("user.deleted", "key:1", "c9", {"user": "u1"})
    assert ask("select action, actor, cid, detail, at <= now() from audit_log") == [
        ("user.deleted", "key:1", "c9", {"user": "u1"}, True)
    ]
