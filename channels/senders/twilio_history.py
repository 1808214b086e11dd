"""What Twilio knows of messages, asked through the SDK: one by its sid, or a list by To, From and date."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import requests
from twilio.base.exceptions import TwilioException

from tocsin.channels.contract import Known
from tocsin.channels.senders.threads import NotBegun, StillRunning, Threads
from tocsin.channels.senders.transport import UNREADABLE
from tocsin.channels.twilio import receipt
from tocsin.domain.errors import ProviderAway

T = TypeVar("T")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_DAY: Final = timedelta(days=1)
_MOST_OF_ONE: Final = 200
"""How many messages to one number in two days are looked at."""
_PAGE: Final = 1_000
_MOST_COUNTED: Final = 20_000
_NO: Final = frozenset(range(400, 500)) - {401, 403, 408, 429}
"""What Twilio answers where it has no such message, or there cannot be one."""
_is_sid: Final = re.compile("[A-Za-z0-9]{1,64}").fullmatch
"""It becomes a part of a path, and may come from whoever told us."""
_TRIAL: Final = "Sent from your Twilio trial account - "
"""What Twilio puts before each text of a trial account."""


class TwilioHistory:
    """Reads one account's messages, in the threads that send. Raises ProviderAway."""

    def __init__(self, messages: Any, threads: Threads, from_number: str, timeout_s: float) -> None:
        self._messages = messages
        self._threads = threads
        self._from = from_number
        self._timeout_s = timeout_s

    async def fetch(self, sid: str) -> Known | None:
        """The message of that sid; None where Twilio has none, or it is no sid."""
        if not _is_sid(sid):
            return None
        return await self._ask(lambda: self._known(self._messages(sid).fetch()), missing=None)

    async def search(self, to: str, body: str, from_ms: int, to_ms: int) -> Sequence[Known]:
        """The messages to a number with exactly this text, made between those times."""

        def found() -> list[Known]:
            listed = self._listed(from_ms, to_ms, limit=_MOST_OF_ONE, to=to)
            same = (each for each in listed if each.body in {body, _TRIAL + body})
            known = (self._known(each) for each in same)
            return [each for each in known if each is not None and from_ms <= each.at_ms <= to_ms]

        return await self._ask(found, missing=[])

    async def count(self, from_ms: int, to_ms: int) -> int | None:
        """How many messages were made between those times; None for more than are worth listing."""

        def counted() -> int | None:
            listed = self._listed(from_ms, to_ms, limit=_MOST_COUNTED)
            if len(listed) == _MOST_COUNTED:
                return None
            return sum(1 for each in listed if from_ms <= (_made_ms(each) or 0) < to_ms)

        return await self._ask(counted, missing=None)

    def _listed(self, from_ms: int, to_ms: int, *, limit: int, **more: str) -> list[Any]:
        """Of whole days, with a day more at the end: Twilio filters by day, of when a message was sent and not made."""
        listed: list[Any] = self._messages.list(
            from_=self._from,
            date_sent_after=_midnight(from_ms),
            date_sent_before=_midnight(to_ms) + _DAY,
            limit=limit,
            page_size=min(limit, _PAGE),
            **more,
        )
        return listed

    def _known(self, made: Any) -> Known | None:
        fields = {
            "MessageSid": made.sid,
            "MessageStatus": made.status,
            "ErrorCode": made.error_code,
            "ErrorMessage": made.error_message,
            "NumSegments": made.num_segments,
            "Price": made.price,
            "To": made.to,
            "From": made.from_,
        }
        told, at_ms = receipt(fields), _made_ms(made)
        if told.status is None or at_ms is None or not told.provider_id:
            return None
        return Known(
            told.provider_id,
            told.status,
            told.word,
            at_ms,
            told.reason,
            told.code,
            told.message,
            told.segments,
            told.price,
        )

    async def _ask(self, work: Callable[[], T], *, missing: T) -> T:
        try:
            return await self._threads.run(work, self._timeout_s)
        except TwilioException as error:
            if getattr(error, "status", None) in _NO:
                return missing
            raise ProviderAway(f"Twilio does not tell ({getattr(error, 'code', None) or 'no code'})") from error
        except (requests.RequestException, OSError, NotBegun, StillRunning, *UNREADABLE) as error:
            raise ProviderAway(f"Twilio does not answer ({type(error).__name__})") from error


def _made_ms(made: Any) -> int | None:
    moment = made.date_created
    return (moment - _EPOCH) // _MS if isinstance(moment, datetime) else None


def _midnight(ms: int) -> datetime:
    return (_EPOCH + ms * _MS).replace(hour=0, minute=0, second=0, microsecond=0)
