"""Pages of an audience against the union that they are pages of (F1, F3)."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.plans.asked import recording
from tests.stored import EVENT, ask, lent
from tocsin.domain.audience import Audience, TopicChoice, audience_of
from tocsin.domain.errors import InvalidInput
from tocsin.domain.filters import filter_of, holds
from tocsin.storage import audience as pages
from tocsin.storage import subscriptions, topics, users
from tocsin.storage.audience import Wanted, page

USERS = st.sampled_from(["A", "Z", "_x", "a", "a:1", "b", "u-1", "u.1", "u1", "u10", "u2", "z"])
ROLES = st.sets(st.sampled_from(["head", "elder"]))
TOPICS = ("t1", "t2")
FILTER = filter_of({"age": {"gte": 3}})


@dataclass
class World:
    """Who there is, and who belongs where."""

    ages: dict[str, int] = field(default_factory=dict)
    members: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    wanted: dict[str, bool] = field(default_factory=dict)

    def store(self) -> None:
        ask("delete from users; delete from topics; delete from subscriptions")
        users.import_users({"id": user, "attributes": {"age": age}} for user, age in self.ages.items())
        topics.add_memberships(
            {place: sorted(roles) for place, roles in self.members.items()}, dict.fromkeys(TOPICS, "g")
        )
        for user, active in self.wanted.items():
            subscriptions.put_subscriptions(user, {"news": active}, frozenset())

    def union(self, audience: Audience) -> list[str]:
        found = set(self.ages) if audience.everyone else set()
        if audience.segment:
            found |= {user for user, age in self.ages.items() if holds(audience.segment, {"age": age})}
        for choice in audience.topics:
            for (topic, user), roles in self.members.items():
                if topic == choice.key and (not choice.roles or roles & set(choice.roles)):
                    found.add(user)
        if audience.subscribers:
            found |= {user for user, active in self.wanted.items() if active}
        return sorted(found)


WORLDS = st.builds(
    World,
    st.dictionaries(USERS, st.integers(0, 6)),
    st.dictionaries(st.tuples(st.sampled_from(TOPICS), USERS), ROLES),
    st.dictionaries(USERS, st.booleans(), max_size=4),
)
AUDIENCES = st.builds(
    Audience,
    topics=st.lists(st.builds(TopicChoice, key=st.sampled_from([*TOPICS, "none"]), roles=ROLES.map(tuple)), max_size=3),
    segment=st.sampled_from([None, FILTER]),
    subscribers=st.booleans(),
    everyone=st.booleans(),
).filter(lambda audience: audience.topics or audience.segment or audience.subscribers or audience.everyone)


@pytest.mark.servers
def test_pages_are_the_union_in_order_and_nobody_twice(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "WINDOW", 3)
    with lent(postgres_url):

        @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
        @given(world=WORLDS, audience=AUDIENCES, limit=st.integers(1, 5))
        def alike(world: World, audience: Audience, limit: int) -> None:
            world.store()
            found: list[str] = []
            after, last = "", False
            while not last:
                read = page(Wanted(EVENT, "news", audience), after, limit, len(found))
                assert read.last or read.reached > after
                found, after, last = found + [user for user, _ in read.found], read.reached, read.last
            assert found == world.union(audience)
            if found:
                assert ask("select horizon >= %s from events where id = %s", found[-1], EVENT) == [(True,)]

        alike()


@pytest.mark.servers
def test_where_a_window_ends_is_looked_for_once_for_all_its_pages(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "WINDOW", 50)
    names = [f"u{number:03d}" for number in range(180)]
    with lent(postgres_url) as connection:
        users.import_users({"id": name, "attributes": {"age": 5}} for name in names)
        found: list[str] = []
        read = pages.People([], "", last=False)
        with recording(connection) as asked:
            while not read.last:
                read = page(Wanted(EVENT, "news", Audience(segment=FILTER)), read.reached, 10, 0, read.window)
                found += [user for user, _ in read.found]
    assert found == names
    assert len([statement for statement in asked.statements if "offset 50" in statement.text]) == 4


@pytest.mark.parametrize(
    ("asked", "field", "code"),
    [
        ({"topics": [("a b", ())]}, "/topics/0/key", "bad_topic_key"),
        ({"topics": [("t1", ("x,y",))]}, "/topics/0/roles/0", "bad_role"),
        ({"topics": [("t1", tuple(f"r{n}" for n in range(21)))]}, "/topics/0/roles", "too_many"),
        ({"topics": [(f"t{n}", ()) for n in range(101)]}, "/topics", "too_many"),
        ({"segment": {"age": {"over": 1}}}, "/segment/age/over", "bad_filter"),
    ],
)
def test_an_audience_that_cannot_be_says_where(asked: dict[str, Any], field: str, code: str) -> None:
    given_ones = {"topics": [], "segment": None, "subscribers": False, "everyone": False} | asked
    with pytest.raises(InvalidInput) as raised:
        audience_of(**given_ones)
    assert (raised.value.field, raised.value.code) == (field, code)


def test_two_choices_of_a_topic_both_count() -> None:
    asked = [("t2", ()), ("t1", ("head",)), ("t1", ("elder",)), ("t2", ("head",))]
    audience = audience_of(asked, None, subscribers=False, everyone=False)
    assert audience is not None
    assert [(each.key, each.roles) for each in audience.topics] == [("t1", ("elder", "head")), ("t2", ())]
    assert audience_of([], None, subscribers=False, everyone=False) is None


def test_an_audience_is_the_same_after_it_was_written_down() -> None:
    asked = {"topics": [("t1", ("head",))], "segment": {"any": [{"a": 1}, {"not": {"b": {"gt": 2, "lt": 9}}}]}}
    audience = audience_of(**asked, subscribers=True, everyone=False)  # type: ignore[arg-type]
    assert audience is not None
    assert Audience.model_validate_json(audience.model_dump_json()) == audience
