"""What users' attributes may be: the values that filters (filters.py) compare, and the names that they know them by."""

import json
from collections.abc import Mapping
from typing import Any, Final

from tocsin.domain.errors import InvalidInput

MOST_VALUES: Final = 100
"""Values of one list, and of one `in`."""
LONGEST_NAME: Final = 64
LONGEST_TEXT: Final = 256
GREATEST: Final = 10**15
"""Numbers are compared exactly up to here, whoever compares them."""

WORDS: Final = ("all", "any", "not")
"""What combines filters; no attribute has such a name."""

Scalar = str | int | float | bool


def fit_attributes(given: Mapping[str, Any], most_bytes: int, field: str = "/attributes") -> dict[str, Any]:
    """Attributes as they are kept: null means that there is none. Raises InvalidInput `bad_attribute`, and `too_long`
    where they take more than `most_bytes` as JSON."""
    kept: dict[str, Any] = {}
    for name, value in given.items():
        place = f"{field}/{pointer_part(name)}"
        if not is_name(name):
            detail = f"The name is not 1 to {LONGEST_NAME} characters of one line, or is one of {', '.join(WORDS)}."
            raise InvalidInput(place, detail, code="bad_attribute")
        if value is None:
            continue
        if (trouble := _trouble_of(value)) is not None:
            raise InvalidInput(place, trouble, code="bad_attribute")
        kept[name] = value
    if kept and len(json.dumps(kept, ensure_ascii=False).encode()) > most_bytes:
        raise InvalidInput(field, f"They are longer than {most_bytes} bytes as JSON.", code="too_long")
    return kept


def is_name(text: str) -> bool:
    """Whether an attribute may be called so."""
    return 0 < len(text) <= LONGEST_NAME and text.isprintable() and text not in WORDS and _is_text(text)


def trouble_with(value: Any) -> str | None:
    """Why a value cannot be kept or compared."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return None if abs(value) <= GREATEST else f"The number is not within {GREATEST:.0e}."
    if not isinstance(value, str):
        return "It is not a text, a number, true or false."
    if len(value) > LONGEST_TEXT:
        return f"The text is longer than {LONGEST_TEXT} characters."
    return None if _is_text(value) else "The text holds a character that cannot be stored."


def _is_text(value: str) -> bool:
    """Postgres keeps neither NUL nor half a surrogate."""
    return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)


def pointer_part(place: str) -> str:
    """A name as one part of a JSON pointer."""
    return str(place).replace("~", "~0").replace("/", "~1")


def _trouble_of(value: Any) -> str | None:
    """Why an attribute cannot be that."""
    values = value if isinstance(value, list) else [value]
    if len(values) > MOST_VALUES:
        return f"The list is longer than {MOST_VALUES}."
    return next((trouble for each in values if (trouble := trouble_with(each)) is not None), None)
