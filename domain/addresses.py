"""Addresses as callers write them, made normal or refused. Pure: nothing is looked up."""

import re
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

import phonenumbers
from email_validator import EmailNotValidError, validate_email

from tocsin.domain.errors import InvalidInput

USER_ID: Final = re.compile(r"[A-Za-z0-9._:@+-]{1,128}")
LOCALE: Final = re.compile(r"[A-Za-z]{2,8}([_-][A-Za-z0-9]{1,8}){0,3}")
LONGEST_NAME: Final = 200
_LONGEST_CONTACT: Final = 320
# The same people get many events, and to look at a number and an address again was a quarter of what accepting one
# costs before it is stored. What is refused is not remembered.
_REMEMBERED: Final = 10_000


def fit_user_id(text: str, field: str = "id") -> str:
    """`text`, if it can be a user id. Raises InvalidInput `bad_user_id`."""
    if not USER_ID.fullmatch(text):
        raise InvalidInput(field, "It is not 1 to 128 of letters, digits and . _ : @ + -", code="bad_user_id")
    return text


def fit_name(text: str, field: str = "name") -> str:
    """`text`, if it is one line that is not too long. Raises InvalidInput `too_long` and `bad_format`."""
    if len(text) > LONGEST_NAME:
        raise InvalidInput(field, f"It is longer than {LONGEST_NAME} characters.", code="too_long")
    if not text or re.search(r"[\x00-\x1f\x7f]", text):
        raise InvalidInput(field, "It is not one line of text.", code="bad_format")
    return text


def fit_locale(text: str, field: str = "locale") -> str:
    """`text`, if it looks like a locale. Raises InvalidInput `bad_format`."""
    if not LOCALE.fullmatch(text):
        raise InvalidInput(field, "It is not a locale, such as en or hi-IN.", code="bad_format")
    return text


def normal_phone(text: str, field: str = "phone") -> str:
    """The number in E.164. Raises InvalidInput `bad_phone`; without `+` and country code it could mean several."""
    return _in_e164(text, field)


@lru_cache(maxsize=_REMEMBERED)
def _in_e164(text: str, field: str) -> str:
    try:
        number = phonenumbers.parse(text, None)
    except phonenumbers.NumberParseException as error:
        raise InvalidInput(field, "The number has no + and country code, or is no number.", code="bad_phone") from error
    if number.extension:
        # E.164 has no room for an extension: sending without it would reach somebody else.
        raise InvalidInput(field, "A number with an extension cannot be reached by SMS.", code="bad_phone")
    if not phonenumbers.is_valid_number(number):
        raise InvalidInput(field, "No such number can exist.", code="bad_phone")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def normal_email(text: str, field: str = "email") -> str:
    """The address in its normal form. Raises InvalidInput `bad_email`."""
    return _normalized(text, field)


@lru_cache(maxsize=_REMEMBERED)
def _normalized(text: str, field: str) -> str:
    if len(text) > _LONGEST_CONTACT:
        raise InvalidInput(field, f"The address is longer than {_LONGEST_CONTACT} characters.", code="bad_email")
    try:
        # test_environment lets names under .test pass, which exist for trying things out; no mail can leave for them.
        return validate_email(text, check_deliverability=False, test_environment=True).normalized
    except EmailNotValidError as error:
        raise InvalidInput(field, "The address is not of the form name@domain.", code="bad_email") from error


def known_timezone(name: str, field: str = "timezone") -> str:
    """`name`, if it is an IANA time zone. Raises InvalidInput `bad_timezone`."""
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:
        raise InvalidInput(field, "There is no such IANA time zone.", code="bad_timezone") from error
    return name
