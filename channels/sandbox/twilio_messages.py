"""The messages that the sandbox's Twilio has, listed and fetched as Twilio answers them: newest first, page by page."""

from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, date, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlencode

from tocsin.domain.text import segments_of

_MOST_KEPT: Final = 20_000
_PAGE: Final = 50
_LARGEST_PAGE: Final = 1_000


class TwilioMessages:
    """The newest messages of one account."""

    def __init__(self, account_sid: str) -> None:
        self._account_sid = account_sid
        self._path = f"/2010-04-01/Accounts/{account_sid}/Messages"
        self._messages: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def add(self, sid: str, form: Mapping[str, str]) -> dict[str, Any]:
        """Keeps a message that was taken; answers its resource as it is at first."""
        made = self._resource(sid, form)
        self._messages[sid] = made
        if len(self._messages) > _MOST_KEPT:
            self._messages.popitem(last=False)
        return dict(made)

    def move(self, sid: str, word: str, code: str | None) -> None:
        """Says what became of a message."""
        if message := self._messages.get(sid):
            now = _now()
            message |= {"status": word, "date_updated": now, "date_sent": message["date_sent"] or now}
            message |= {"error_code": int(code) if code else None}

    def fetch(self, sid: str) -> dict[str, Any] | None:
        """One message's resource."""
        found = self._messages.get(sid)
        return dict(found) if found else None

    def page(self, query: Mapping[str, str]) -> dict[str, Any]:
        """One page of a list, filtered by To, From and the days of DateSent."""
        size = min(_number(query.get("PageSize"), _PAGE) or _PAGE, _LARGEST_PAGE)
        number = _number(query.get("Page"), 0)
        found = [each for each in reversed(self._messages.values()) if _fits(each, query)]
        first = number * size
        shown = found[first : first + size]
        return {
            "messages": shown,
            "first_page_uri": self._uri(query, 0, size),
            "previous_page_uri": self._uri(query, number - 1, size) if number else None,
            "next_page_uri": self._uri(query, number + 1, size) if first + size < len(found) else None,
            "uri": self._uri(query, number, size),
            "page": number,
            "page_size": size,
            "start": first,
            "end": first + max(0, len(shown) - 1),
        }

    def _uri(self, query: Mapping[str, str], number: int, size: int) -> str:
        return f"{self._path}.json?{urlencode({**query, 'PageSize': size, 'Page': number, 'PageToken': f'PA{number}'})}"

    def _resource(self, sid: str, form: Mapping[str, str]) -> dict[str, Any]:
        now = _now()
        return {
            "sid": sid,
            "account_sid": self._account_sid,
            "api_version": "2010-04-01",
            "body": form["Body"],
            "date_created": now,
            "date_updated": now,
            "date_sent": None,
            "direction": "outbound-api",
            "error_code": None,
            "error_message": None,
            "from": form.get("From"),
            "messaging_service_sid": form.get("MessagingServiceSid"),
            "num_media": "0",
            "num_segments": str(segments_of(form["Body"])),
            "price": None,
            "price_unit": "USD",
            "status": "queued",
            "subresource_uris": {},
            "to": form["To"],
            "uri": f"{self._path}/{sid}.json",
        }


def _fits(message: Mapping[str, Any], query: Mapping[str, str]) -> bool:
    day = parsedate_to_datetime(message["date_sent"] or message["date_created"]).date()
    # Twilio compares days, whatever time of the day is given, and takes the day itself too.
    before, after, on = (_day(query.get(f"DateSent{sign}")) for sign in ("<", ">", ""))
    return (
        message["to"] == query.get("To", message["to"])
        and message["from"] == query.get("From", message["from"])
        and (before is None or day <= before)
        and (after is None or day >= after)
        and (on is None or day == on)
    )


def _day(text: str | None) -> date | None:
    return date.fromisoformat(text[:10]) if text else None


def _number(text: str | None, otherwise: int) -> int:
    return int(text) if text and text.isascii() and text.isdigit() else otherwise


def _now() -> str:
    return format_datetime(datetime.now(UTC))
