"""Addresses as callers write them, made normal or refused. Pure: nothing is looked up."""

from zoneinfo import ZoneInfo

import phonenumbers
from email_validator import EmailNotValidError, validate_email

from tocsin.domain.errors import InvalidInput


def normal_phone(text: str, field: str = "phone") -> str:
    """The number in E.164. Raises InvalidInput `bad_phone`; without `+` and country code it could mean several."""
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
