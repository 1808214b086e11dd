"""The filter over attributes: its form, and that Postgres and Python answer alike (F1)."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.stored import lent
from tocsin.domain.attributes import fit_attributes
from tocsin.domain.errors import InvalidInput
from tocsin.domain.filters import filter_of, form_of, holds, stored_filter
from tocsin.storage.audience import condition
from tocsin.storage.database import cursor

NAMES = st.sampled_from(["age", "gotra", "city", "a%b'\"\\", "x"])
NUMBERS = st.one_of(
    st.integers(-20, 20),
    st.integers(-(10**15), 10**15),
    st.floats(-1e15, 1e15, allow_nan=False),
    st.sampled_from([1.0, -0.0, 0.1, 0.30000000000000004, 1e-7, 5e-324]),
)
TEXTS = st.one_of(
    st.sampled_from(["", "Sharma", "sharma", "é", "z", "Z", "1", "%s", "'; drop table users", "\U0001f389"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5),
)
SCALARS = st.one_of(NUMBERS, TEXTS, st.booleans())
COMPARED = st.one_of(NUMBERS, TEXTS)
TESTS = st.one_of(
    SCALARS,
    st.fixed_dictionaries({}, optional={"gt": COMPARED, "lte": COMPARED}).filter(bool),
    st.fixed_dictionaries({"gte": COMPARED, "lt": COMPARED}),
    st.fixed_dictionaries({"in": st.lists(SCALARS, min_size=1, max_size=4)}),
    st.fixed_dictionaries({"contains": SCALARS}),
    st.fixed_dictionaries({"exists": st.booleans()}),
    st.fixed_dictionaries({"eq": SCALARS}),
)
FORMS: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.dictionaries(NAMES, TESTS, min_size=1, max_size=3),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"not": inner}),
        st.fixed_dictionaries({"any": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"all": st.lists(inner, min_size=1, max_size=3)}),
    ),
    max_leaves=4,
)
ATTRIBUTES = st.dictionaries(NAMES, st.one_of(SCALARS, st.lists(SCALARS, max_size=3)), max_size=4)


def is_shallow(form: Any) -> bool:
    try:
        filter_of(form)
    except InvalidInput:
        return False
    return True


@pytest.mark.servers
def test_postgres_answers_as_python_does(postgres_url: str) -> None:
    with lent(postgres_url):

        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
        @given(form=FORMS.filter(is_shallow), people=st.lists(ATTRIBUTES, min_size=1, max_size=6))
        @example(form={"age": {"gte": 18}}, people=[{"age": True}, {"age": "20"}, {"age": [20]}, {"age": 18.0}])
        @example(form={"not": {"x": {"lt": 1}}}, people=[{}, {"x": "a"}, {"x": 1}])
        @example(form={"x": 10**15}, people=[{"x": 1e15}, {"x": 10**15 - 1}])
        def alike(form: dict[str, Any], people: list[dict[str, Any]]) -> None:
            wanted = filter_of(form)
            values: dict[str, Any] = {"people": json.dumps(people)}
            statement = (
                f"select place - 1, {condition(wanted, values)}"
                " from jsonb_array_elements(%(people)s::jsonb) with ordinality as person (attributes, place)"
            )
            with cursor() as query:
                query.execute(statement, values)
                answers = dict(query.fetchall())
            for place, attributes in enumerate(people):
                assert answers[place] is holds(wanted, attributes), attributes

        alike()


@given(FORMS.filter(is_shallow))
def test_a_filter_that_is_written_down_and_read_is_the_same(form: dict[str, Any]) -> None:
    wanted = filter_of(form)
    assert stored_filter(json.loads(json.dumps(form_of(wanted)))) == wanted


@pytest.mark.parametrize(
    ("form", "field", "detail"),
    [
        ({}, "/segment", "not an object"),
        ([], "/segment", "not an object"),
        ({"age": {}}, "/segment/age", "says nothing"),
        ({"age": {"over": 5}}, "/segment/age/over", "no test of that name"),
        ({"age": {"gte": True}}, "/segment/age/gte", "a number or a text"),
        ({"age": {"gte": [1]}}, "/segment/age/gte", "a number or a text"),
        ({"age": None}, "/segment/age", "not a text, a number"),
        ({"age": [1]}, "/segment/age", "not a text, a number"),
        ({"age": {"in": []}}, "/segment/age/in", "not a list"),
        ({"age": {"in": list(range(101))}}, "/segment/age/in", "more than 100"),
        ({"age": {"in": [1, {}]}}, "/segment/age/in/1", "not a text, a number"),
        ({"age": {"exists": 1}}, "/segment/age/exists", "true nor false"),
        ({"age": 10**16}, "/segment/age", "not within"),
        ({"age": 10**400}, "/segment/age", "not within"),
        ({"age": "x" * 257}, "/segment/age", "longer"),
        ({"age": "\0"}, "/segment/age", "cannot be stored"),
        ({"a/b~": {"over": 5}}, "/segment/a~1b~0/over", "no test of that name"),
        ({"": 1}, "/segment/", "An attribute's name"),
        ({"any": []}, "/segment/any", "not a list of filters"),
        ({"any": [{"age": 1}, 5]}, "/segment/any/1", "not an object"),
        ({"not": {"not": {"not": {"not": {"not": {"age": 1}}}}}}, "/segment/not/not/not/not/not", "deeper than 5"),
        ({"any": [{f"a{number}": number} for number in range(51)]}, "/segment/any", "more than 50"),
        ({"all": [{"any": [{f"{side}{n}": 1} for n in range(30)]} for side in "ab"]}, "/segment", "more than 50 tests"),
    ],
)
def test_a_filter_that_is_not_understood_says_where(form: Any, field: str, detail: str) -> None:
    with pytest.raises(InvalidInput, match=detail) as raised:
        filter_of(form)
    assert (raised.value.field, raised.value.code) == (field, "bad_filter")


def test_attributes_are_texts_numbers_truths_and_lists_of_them() -> None:
    given_ones = {"gotra": "Sharma", "age": 41, "married": True, "languages": ["hi", "en"], "gone": None}
    kept = {name: value for name, value in given_ones.items() if value is not None}
    assert fit_attributes(given_ones, 1_000) == kept


@pytest.mark.parametrize(
    ("attributes", "field", "code"),
    [
        ({"a": {"b": 1}}, "/attributes/a", "bad_attribute"),
        ({"a": [[1]]}, "/attributes/a", "bad_attribute"),
        ({"all": 1}, "/attributes/all", "bad_attribute"),
        ({"n" * 65: 1}, f"/attributes/{'n' * 65}", "bad_attribute"),
        ({"a": float("inf")}, "/attributes/a", "bad_attribute"),
        ({"a": list(range(101))}, "/attributes/a", "bad_attribute"),
        ({"a": "x" * 200, "b": "y" * 200}, "/attributes", "too_long"),
    ],
)
def test_other_attributes_are_refused(attributes: dict[str, Any], field: str, code: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        fit_attributes(attributes, 300)
    assert (raised.value.field, raised.value.code) == (field, code)
