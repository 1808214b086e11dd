"""Sends SMS with the twilio SDK's synchronous client, in threads of its own.

Not the asynchronous one: that ignores its time-out, and with retries posts a message several times.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlencode

import requests
from twilio.base.exceptions import TwilioException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client

from tocsin.channels.cleaning import cleaned, private_parts
from tocsin.channels.contract import BuildContext, Known, Message, Outcome, OutcomeKind
from tocsin.channels.senders.threads import NotBegun, StillRunning, Threads
from tocsin.channels.senders.transport import (
    UNREADABLE,
    Call,
    after_error,
    is_loopback,
    not_begun,
    prepare,
    retry_after_s,
)
from tocsin.channels.senders.twilio_history import TwilioHistory
from tocsin.channels.twilio import CALLBACK_PATH, CODES, SECTION, TwilioSettings
from tocsin.domain.addresses import normal_phone
from tocsin.domain.delivery import Channel, Reason
from tocsin.domain.errors import InvalidInput, SettingError
from tocsin.domain.text import FittedText, fit_sms

_NORMAL: Final = re.compile(r"\+[1-9][0-9]{7,14}")
_MOST_SEGMENTS: Final = 10
"""Twilio takes 1,600 characters, which is ten segments and a little."""
_QUIET: Final = logging.getLogger("tocsin.twilio")
"""The SDK tells the URL and the headers of every request at INFO."""
_QUIET.setLevel(logging.WARNING)
_HTTP_STATUSES: Final = range(100, 600)


class TwilioSender:
    """SMS through one Twilio account."""

    channel = Channel.SMS
    configured = True

    def __init__(self, settings: TwilioSettings, context: BuildContext, provider: str) -> None:
        self.provider = provider
        self.concurrency = settings.concurrency
        self.rate = settings.limit
        self.timeout_s = settings.timeout / 1000
        self._from = settings.from_number
        self._context = context
        self._private = tuple(filter(None, (settings.auth_token, settings.account_sid, settings.from_number)))
        base_url = settings.base_url.rstrip("/")
        self._callback_base = _reachable(context.public_url, base_url)
        http = TwilioHttpClient(timeout=self.timeout_s, logger=_QUIET)
        self._session: requests.Session = http.session
        prepare(self._session, base_url, connections=settings.concurrency, timeout_s=self.timeout_s)
        # Given an environment, the SDK does not look for TWILIO_EDGE and TWILIO_REGION, which change the host.
        self._client = Client(settings.account_sid, settings.auth_token, http_client=http, environment={"none": "none"})
        self._client.api.base_url = base_url
        # Asked for here and not at the first send: the SDK then imports the half of it.
        self._messages = self._client.messages
        self._threads = Threads(settings.concurrency, "twilio")
        self._history = TwilioHistory(self._messages, self._threads, settings.from_number or "", self.timeout_s)

    @property
    def gives_receipts(self) -> bool:
        return self._callback_base is not None

    async def fetch(self, provider_id: str) -> Known | None:
        return await self._history.fetch(provider_id)

    async def search(self, message: Message, from_ms: int, to_ms: int) -> Sequence[Known]:
        try:
            to = normal_phone(message.address)
        except InvalidInput:
            return ()
        return await self._history.search(to, self._fitted(message).text, from_ms, to_ms)

    async def count(self, from_ms: int, to_ms: int) -> int | None:
        return await self._history.count(from_ms, to_ms)

    async def send(self, message: Message) -> Outcome:
        try:
            # Whoever took a number in has made it normal, and looked whether it can exist.
            to = message.address if _NORMAL.fullmatch(message.address) else normal_phone(message.address)
        except InvalidInput:
            return Outcome(OutcomeKind.PERMANENT, Reason.INVALID_ADDRESS, message="the number is not one of E.164")
        fitted = self._fitted(message)
        call = Call(lambda: self._create(message, to, fitted))
        private = (*self._private, *private_parts(to), *private_parts(message.address))
        outcome = await self._outcome(call)
        return replace(outcome, segments=fitted.segments, message=cleaned(outcome.message, private))

    async def check(self) -> None:
        account = self._client.api.accounts(self._client.account_sid)
        try:
            await self._threads.run(account.fetch, self.timeout_s)
        except (TwilioException, requests.RequestException, OSError, NotBegun, StillRunning, *UNREADABLE) as error:
            said = cleaned(getattr(error, "msg", None), self._private) or type(error).__name__
            raise SettingError(f"{SECTION}: Twilio cannot be used with these credentials: {said}") from error

    async def close(self) -> None:
        self._threads.close()
        self._session.close()

    def _fitted(self, message: Message) -> FittedText:
        most = min(self._context.max_segments, _MOST_SEGMENTS)
        return fit_sms(message.text, most, self._context.emoji.get(message.priority, ""))

    async def _outcome(self, call: Call[Any]) -> Outcome:
        try:
            made = await self._threads.run(call, self.timeout_s)
        except NotBegun:
            return not_begun()
        except StillRunning:
            return after_error(call)
        except TwilioException as error:
            return _refused(call, error)
        except (requests.RequestException, OSError, *UNREADABLE) as error:
            return after_error(call, error)
        if not made.sid:
            return after_error(call)
        return Outcome(OutcomeKind.SENT, provider_id=made.sid, provider_status=made.status, price=_price(made.price))

    def _create(self, message: Message, to: str, fitted: FittedText) -> Any:
        """One POST, in a thread."""
        callback = {"status_callback": self._callback(message)} if self._callback_base else {}
        return self._messages.create(to=to, from_=self._from, body=fitted.text, **callback)

    def _callback(self, message: Message) -> str:
        """Where Twilio tells what became of it. The fragment asks for three tries on any failure; it is not signed."""
        named = {
            "delivery": message.delivery,
            "notification": message.notification,
            "step": message.step,
            "attempt": message.attempt,
        }
        return f"{self._callback_base}{CALLBACK_PATH}?{urlencode(named)}#rc=3&rp=all"


def _refused(call: Call[Any], error: TwilioException) -> Outcome:
    """The outcome of an answer other than 2xx. The SDK puts the HTTP status where a code is missing."""
    outcome = after_error(call, error)
    code = getattr(error, "code", None)
    if not isinstance(code, int) or code in _HTTP_STATUSES:
        return outcome
    if meaning := CODES.get(code):
        headers = call.answer.headers if call.answer is not None else None
        asked = retry_after_s(headers) if meaning.kind is OutcomeKind.TEMPORARY else None
        outcome = Outcome(meaning.kind, meaning.reason, retry_after_s=asked)
    said = getattr(error, "msg", None) or getattr(error, "detail", None) or ""
    return replace(outcome, code=str(code), message=str(said).removeprefix("Unable to create record: "))


def _reachable(public_url: str | None, base_url: str) -> str | None:
    """The public URL, unless the real Twilio would be told to call this machine, which it refuses (21609)."""
    if public_url is None or (is_loopback(public_url) and not is_loopback(base_url)):
        return None
    return public_url.rstrip("/")


def _price(price: object) -> str | None:
    return str(price) if price not in (None, "") else None
