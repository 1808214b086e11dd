"""The part of asking.py that is about people and groups of them."""

import time
from uuid import uuid4

from tocsin.domain import ids
from tocsin.domain.audience import Audience, TopicChoice
from tocsin.domain.filters import filter_of
from tocsin.storage import audience, subscriptions, topics, users


def ask_people() -> None:
    """What is asked of users, their devices and what they want."""
    users.put_user("u1", email="a@example.org")
    users.import_users([{"id": "u2", "name": "Bina"}])
    users.list_users(100, "u5")
    device = users.put_device("u1", "a token").device
    users.list_devices("u1")
    users.delete_device("u1", device.id)
    users.delete_tokens("u2", ["token of u2"])
    users.get_user("u1")
    users.get_preferences("u1")
    users.put_preferences("u1", ["SMS"])
    users.all_opt_outs("u5", 1_000)
    users.changed_since(time.time_ns() // 1_000_000 - 30_000, 1_000, "u5")
    users.clock_ms()
    users.delete_user("u3")


def ask_groups() -> None:
    """What is asked of topics, members, subscriptions and audiences."""
    topics.put_topic("t-new", "family", "A family")
    topics.known(["t1", "t2"])
    topics.get_topic("t1")
    topics.list_topics(50, "t1")
    topics.list_topics(50, "t1", "family")
    topics.add_members("t-new", {"u1": ["head"], "u2": []})
    topics.add_members("t-new", {"u1": ["head"]}, replace=True)
    topics.list_members("t1", 50, "u1", "head")
    topics.remove_members("t-new", ["u1"])
    topics.topics_of("u1", 50)
    topics.delete_topic("t-new")
    topics.add_memberships({("t1", "u1"): ["head"], ("t-none", "u2"): []}, {"t-made": "family"})
    subscriptions.put_subscriptions("u1", {"community.update": True}, frozenset({"security.alert"}))
    subscriptions.subscriptions_of("u1")
    users.attributes_of(["u1", "u2"])
    event = ids.event_id(time.time_ns() // 1_000_000, uuid4().bytes[:10])
    for form in (
        Audience(everyone=True),
        Audience(subscribers=True, topics=(TopicChoice(key="t1"), TopicChoice(key="t2", roles=("head",)))),
        Audience(segment=filter_of({"gotra": "g7"})),
        Audience(segment=filter_of({"gotra": "g7", "age": {"gte": 18}, "city": {"exists": True}})),
    ):
        audience.page(audience.Wanted(event, "community.update", form), "u5", 1_000, 0)
    audience.before(event, ["u1", "u2"])
    audience.named_in(event)
