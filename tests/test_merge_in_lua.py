"""merge.lua settles two statuses of one attempt as domain/delivery.py does, whatever their order and number."""

from functools import reduce
from importlib.resources import files
from typing import Any

import fakeredis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tocsin.domain.delivery import OPEN, RANK, Status, key, shown_attempt

_ALONE = """
local joined = ARGV[1]
for position = 2, #ARGV do joined = join(joined, ARGV[position]) end
return { joined, is_final(joined) and '1' or '0' }
"""
_LETTERS = "local all = {} for letter, status in pairs(STATUSES) do table.insert(all, status) end return all"


def _script(body: str) -> str:
    return (files("tocsin.storage") / "lua" / "merge.lua").read_text() + body


@pytest.fixture(params=["fakeredis", pytest.param("redis", marks=pytest.mark.servers)])
def client(request: pytest.FixtureRequest) -> Any:
    if request.param == "fakeredis":
        return fakeredis.FakeRedis(decode_responses=True)
    import redis

    return redis.Redis.from_url(request.getfixturevalue("redis_url"), decode_responses=True)


@given(statuses=st.lists(st.sampled_from(list(Status)), min_size=1, max_size=8), data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_shuffled_and_doubled_statuses_of_an_attempt_end_alike(client: Any, statuses: list[Status], data: Any) -> None:
    told = data.draw(st.permutations(statuses + statuses[:3]))
    joined, final = client.eval(_script(_ALONE), 0, *told)
    _, expected = shown_attempt({key(1, status): {"at": 0} for status in statuses})
    assert joined == expected == reduce(lambda one, other: max(one, other, key=RANK.__getitem__), statuses)
    assert (final == "1") == (expected not in OPEN)


def test_every_status_has_its_letter(client: Any) -> None:
    assert sorted(client.eval(_script(_LETTERS), 0)) == sorted(Status)
