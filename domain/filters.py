"""A filter over the attributes of users, in a JSON form that is safe to take from outside:

    {"gotra": "Sharma", "age": {"gte": 18, "lt": 60}, "any": [{"city": {"in": ["Pune"]}}, {"not": {"moved": true}}]}

All that stand side by side must hold. A test is a value, which the attribute equals, or an object of `eq`, `in`,
`gt`, `gte`, `lt`, `lte` (numbers with numbers, texts with texts), `contains` (a list holds the value) and `exists`.
`all`, `any` and `not` combine. A test of an attribute that somebody does not have does not hold, and `not` of it
does.

Pure: storage/audience.py makes SQL of it, and `holds` says the same in Python; a test keeps the two together.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from tocsin.domain.attributes import (
    LONGEST_NAME,
    MOST_VALUES,
    WORDS,
    Scalar,
    is_name,
    pointer_part,
    trouble_with,
)
from tocsin.domain.errors import InvalidInput

MOST_DEPTH: Final = 5
MOST_TESTS: Final = 50


@dataclass(frozen=True, slots=True)
class Check:
    """A test of one attribute: `operator` is one of OPERATORS, `value` a scalar, for `in` a tuple of them."""

    name: str
    operator: str
    value: Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class All:
    """Holds where all `parts` do; so without any it always does."""

    parts: "tuple[Filter, ...]"


@dataclass(frozen=True, slots=True)
class Some:
    """Holds where one of `parts` does; so without any it never does."""

    parts: "tuple[Filter, ...]"


@dataclass(frozen=True, slots=True)
class Not:
    """Holds where `part` does not."""

    part: "Filter"


Filter = Check | All | Some | Not

_COMPARED: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "gt": lambda one, other: bool(one > other),
    "gte": lambda one, other: bool(one >= other),
    "lt": lambda one, other: bool(one < other),
    "lte": lambda one, other: bool(one <= other),
}
OPERATORS: Final = ("eq", "in", "contains", "exists", *_COMPARED)


def filter_of(form: Any, field: str = "/segment") -> Filter:
    """The filter that `form`, which is JSON, says. Raises InvalidInput `bad_filter`, whose field is a JSON pointer to
    what is wrong."""
    found = _group(form, field, MOST_DEPTH)
    if sum(1 for _ in checks_of(found)) > MOST_TESTS:
        raise _wrong(field, f"It has more than {MOST_TESTS} tests.")
    return found


def stored_filter(form: Any) -> Filter:
    """The filter of a form that `form_of` made, which may be nested a little deeper than what it was made of."""
    return form if isinstance(form, Check | All | Some | Not) else _group(form, "", 2 * MOST_DEPTH + 1)


def form_of(wanted: Filter) -> dict[str, Any]:
    """The form of a filter, made normal: read again it is the same filter."""
    match wanted:
        case Check(name, operator, value):
            plain = list(value) if isinstance(value, tuple) else value
            return {name: plain if operator == "eq" else {operator: plain}}
        case Not(part):
            return {"not": form_of(part)}
        case Some(parts):
            return {"any": [form_of(part) for part in parts]}
        case All(parts):
            return _side_by_side([form_of(part) for part in parts])


def checks_of(wanted: Filter) -> "Sequence[Check]":
    """The tests that a filter is made of."""
    match wanted:
        case Check():
            return [wanted]
        case Not(part):
            return checks_of(part)
        case All(parts) | Some(parts):
            return [check for part in parts for check in checks_of(part)]


def holds(wanted: Filter, attributes: Mapping[str, Any]) -> bool:
    """Whether a person with `attributes` fits."""
    match wanted:
        case Check(name, operator, value):
            return name in attributes and _CHECKS[operator](attributes[name], value)
        case Not(part):
            return not holds(part, attributes)
        case All(parts):
            return all(holds(part, attributes) for part in parts)
        case Some(parts):
            return any(holds(part, attributes) for part in parts)


def _group(form: Any, field: str, depth: int) -> Filter:
    """`depth` is how many levels there may be."""
    if not isinstance(form, Mapping) or not form:
        raise _wrong(field, 'It is not an object with tests, such as {"gotra": "Sharma"}.')
    if depth < 1:
        raise _wrong(field, f"It is nested deeper than {MOST_DEPTH}.")
    parts: list[Filter] = []
    for name in sorted(form):
        place = f"{field}/{pointer_part(name)}"
        if name == "not":
            parts.append(Not(_group(form[name], place, depth - 1)))
        elif name in WORDS:
            several = tuple(_several(form[name], place, depth))
            parts += several if name == "all" else [Some(several)]
        elif is_name(name):
            parts += _checks(name, form[name], place)
        else:
            raise _wrong(place, f"An attribute's name has 1 to {LONGEST_NAME} characters of one line.")
    return _together(parts)


def _together(parts: Sequence[Filter]) -> Filter:
    flat = [inner for part in parts for inner in (part.parts if isinstance(part, All) else (part,))]
    ordered = {json.dumps(form_of(part), sort_keys=True): part for part in flat}
    kept = tuple(ordered[text] for text in sorted(ordered))
    return kept[0] if len(kept) == 1 else All(kept)


def _several(form: Any, field: str, depth: int) -> Sequence[Filter]:
    if not isinstance(form, list | tuple) or not form:
        raise _wrong(field, "It is not a list of filters.")
    if len(form) > MOST_TESTS:
        raise _wrong(field, f"It has more than {MOST_TESTS} filters.")
    return [_group(part, f"{field}/{place}", depth - 1) for place, part in enumerate(form)]


def _checks(name: str, test: Any, field: str) -> list[Filter]:
    if not isinstance(test, Mapping):
        return [Check(name, "eq", _scalar(test, field))]
    if not test:
        raise _wrong(field, f"It says nothing; use one of {', '.join(OPERATORS)}.")
    return [_check(name, word, test[word], f"{field}/{pointer_part(word)}") for word in sorted(test)]


def _check(name: str, word: str, value: Any, field: str) -> Filter:
    if word == "in":
        return Check(name, word, _values(value, field))
    if word == "exists":
        if not isinstance(value, bool):
            raise _wrong(field, "It is neither true nor false.")
        there = Check(name, word, True)
        return there if value else Not(there)
    if word in _COMPARED and (isinstance(value, bool) or not isinstance(value, str | int | float)):
        raise _wrong(field, "It compares with a number or a text.")
    if word not in OPERATORS:
        raise _wrong(field, f"There is no test of that name; use one of {', '.join(OPERATORS)}.")
    return Check(name, word, _scalar(value, field))


def _values(value: Any, field: str) -> tuple[Scalar, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise _wrong(field, "It is not a list of values.")
    if len(value) > MOST_VALUES:
        raise _wrong(field, f"It has more than {MOST_VALUES} values.")
    return tuple(_scalar(each, f"{field}/{place}") for place, each in enumerate(value))


def _scalar(value: Any, field: str) -> Scalar:
    if (trouble := trouble_with(value)) is not None:
        raise _wrong(field, trouble)
    scalar: Scalar = value
    return scalar


def _side_by_side(forms: Sequence[dict[str, Any]]) -> dict[str, Any]:
    names = [name for form in forms for name in form]
    if len(names) == len(set(names)):
        return {name: value for form in forms for name, value in form.items()}
    return {"all": list(forms)}


def _wrong(field: str, detail: str) -> InvalidInput:
    return InvalidInput(field, detail, code="bad_filter")


def _is_equal(one: Any, other: Any) -> bool:
    kind = _kind_of(one)
    return kind is not None and kind == _kind_of(other) and _comparable(one) == _comparable(other)


def _kind_of(value: Any) -> str | None:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else None


def _comparable(value: Any) -> Any:
    """A number as it is written, which is what Postgres compares; a text by its code points, as the collation C
    does."""
    return Decimal(repr(value)) if _kind_of(value) == "number" else value


def _compare(word: str) -> Callable[[Any, Any], bool]:
    def compare(one: Any, other: Any) -> bool:
        alike = _kind_of(one) == _kind_of(other) and _kind_of(one) in {"number", "text"}
        return alike and _COMPARED[word](_comparable(one), _comparable(other))

    return compare


_CHECKS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "eq": _is_equal,
    "in": lambda one, values: any(_is_equal(one, value) for value in values),
    "contains": lambda one, value: isinstance(one, list) and any(_is_equal(each, value) for each in one),
    "exists": lambda one, _: True,
    **{word: _compare(word) for word in _COMPARED},
}
