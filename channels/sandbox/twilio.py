"""The sandbox's Twilio: takes messages and tells what became of them, signed as Twilio signs.

Numbers that ask for something else, Twilio's own magic ones first: +15005550001 no such number (21211) · …0003 country
not allowed (21408) · …0004 opted out (21610) · …0009 no mobile (21614) · …0021 too many (429) · …0022 an error inside
(500) · …0023 hangs up and has taken nothing · …0024 hangs up and has taken it · …0031 taken, then undelivered (30003)
· …0032 taken and sent twice, each with its receipts · …0033 taken, no receipt ever comes · …0034 taken, hangs up,
no receipt ever comes
"""

import asyncio
import base64
import re
import secrets
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs, parse_qsl, urldefrag, urlsplit

import httpx

from tocsin.channels.sandbox.outbox import Outbox
from tocsin.channels.sandbox.signing import signature_of
from tocsin.channels.sandbox.twilio_messages import TwilioMessages
from tocsin.channels.sandbox.web import HangUp, WebAnswer, WebRequest
from tocsin.domain.delivery import Channel
from tocsin.domain.text import segments_of

FROM_NUMBER: Final = "+15005550006"
_E164: Final = re.compile(r"\+[1-9]\d{6,14}")
_LONGEST_BODY: Final = 1_600
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")

_REFUSALS: Final = {
    "+15005550001": (400, 21211, "The 'To' number {to} is not a valid phone number."),
    "+15005550003": (400, 21408, "Permission to send an SMS has not been enabled for the region of {to}."),
    "+15005550004": (400, 21610, "Attempt to send to unsubscribed recipient {to}."),
    "+15005550009": (400, 21614, "'To' number {to} is not a valid mobile number."),
    "+15005550021": (429, 20429, "Too many requests"),
    "+15005550022": (500, 20500, "An internal server error has occurred"),
}
_TAKES_NOTHING: Final = "+15005550023"
_TAKES_AND_HANGS_UP: Final = "+15005550024"
_UNDELIVERED: Final = "+15005550031"
_SENDS_TWICE: Final = "+15005550032"
_TELLS_NOTHING: Final = "+15005550033"
_HANGS_UP_AND_TELLS_NOTHING: Final = "+15005550034"


class TwilioServer:
    """Handles requests; `account_sid` and `auth_token` are what it lets in."""

    def __init__(self, outbox: Outbox, *, receipt_delay_s: float) -> None:
        self.account_sid = "AC" + secrets.token_hex(16)
        self.auth_token = secrets.token_hex(16)
        self.messages = TwilioMessages(self.account_sid)
        self._outbox = outbox
        self._delay_s = receipt_delay_s
        self._client = httpx.AsyncClient(trust_env=False, timeout=5.0)
        self._telling: set[asyncio.Task[None]] = set()

    async def handle(self, request: WebRequest) -> WebAnswer:
        """Answers one request."""
        account = f"/2010-04-01/Accounts/{self.account_sid}"
        path, _, query = request.path.partition("?")
        basic = base64.b64encode(f"{self.account_sid}:{self.auth_token}".encode()).decode()
        if not secrets.compare_digest(request.headers.get("authorization", ""), f"Basic {basic}"):
            return _problem(401, 20003, "Authenticate")
        if (request.method, path) == ("POST", f"{account}/Messages.json"):
            return self._create(request.form())
        found = self._look(path.removeprefix(account), query) if request.method == "GET" else None
        return WebAnswer(200, found) if found else _problem(404, 20404, "The requested resource was not found")

    def _look(self, path: str, query: str) -> dict[str, Any] | None:
        if path == ".json":
            return {"sid": self.account_sid, "status": "active", "friendly_name": "Sandbox"}
        if path == "/Messages.json":
            return self.messages.page(dict(parse_qsl(query)))
        return self.messages.fetch(path.removeprefix("/Messages/").removesuffix(".json"))

    async def close(self) -> None:
        """Tells nothing more."""
        for task in self._telling:
            task.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)
        await self._client.aclose()

    def _create(self, form: Mapping[str, str]) -> WebAnswer:
        to = form.get("To", "")
        refusal = _refusal(form)
        if refusal:
            return refusal
        if to == _TAKES_NOTHING:
            raise HangUp
        made = [self._take(form) for _ in range(2 if to == _SENDS_TWICE else 1)]
        if to in {_TAKES_AND_HANGS_UP, _HANGS_UP_AND_TELLS_NOTHING}:
            raise HangUp
        return WebAnswer(201, made[0])

    def _take(self, form: Mapping[str, str]) -> dict[str, Any]:
        sid = "SM" + secrets.token_hex(16)
        self._keep(form)
        made = self.messages.add(sid, form)
        task = asyncio.get_running_loop().create_task(self._carry(sid, dict(form)))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)
        return made

    def _keep(self, form: Mapping[str, str]) -> None:
        named = parse_qs(urlsplit(form.get("StatusCallback", "")).query)
        attempt = named.get("attempt", [""])[0]
        self._outbox.add(
            Channel.SMS,
            form["To"],
            delivery=named.get("delivery", [None])[0],
            notification=named.get("notification", [None])[0],
            attempt=int(attempt) if attempt.isdigit() else None,
            text=form["Body"],
            segments=segments_of(form["Body"]),
            raw=dict(form),
        )

    async def _carry(self, sid: str, form: Mapping[str, str]) -> None:
        """Lets a message take its way, and posts the callbacks that follow the first status, which has none."""
        for word in ("sent", "undelivered" if form["To"] == _UNDELIVERED else "delivered"):
            await asyncio.sleep(self._delay_s)
            code = "30003" if word == "undelivered" else None
            self.messages.move(sid, word, code)
            if form.get("StatusCallback") and form["To"] not in {_TELLS_NOTHING, _HANGS_UP_AND_TELLS_NOTHING}:
                await self._tell(sid, word, code, form)

    async def _tell(self, sid: str, word: str, code: str | None, form: Mapping[str, str]) -> None:
        fields = {
            "SmsSid": sid,
            "SmsStatus": word,
            "MessageStatus": word,
            "To": form["To"],
            "MessageSid": sid,
            "AccountSid": self.account_sid,
            "From": form.get("From", ""),
            "ApiVersion": "2010-04-01",
            **({"ErrorCode": code} if code else {}),
        }
        await self._post(form["StatusCallback"], fields)

    async def _post(self, callback: str, fields: Mapping[str, str]) -> None:
        """As Twilio does: without the fragment, which says how often to try again. Only servers on this machine."""
        url, fragment = urldefrag(callback)
        if urlsplit(url).hostname not in _LOOPBACK:
            return
        tries = 1 + int(dict(parse_qsl(fragment)).get("rc", "1"))
        headers = {"X-Twilio-Signature": signature_of(self.auth_token, url, fields)}
        for _ in range(tries):
            try:
                answer = await self._client.post(url, data=dict(fields), headers=headers)
            except httpx.HTTPError:
                await asyncio.sleep(self._delay_s)
                continue
            if answer.status_code < 400:
                return
            await asyncio.sleep(self._delay_s)


def _refusal(form: Mapping[str, str]) -> WebAnswer | None:
    to, body = form.get("To", ""), form.get("Body", "")
    faults = (
        (not to, 21604, "A 'To' phone number is required."),
        (not _E164.fullmatch(to), 21211, f"The 'To' number {to} is not a valid phone number."),
        (not form.get("From"), 21603, "A 'From' phone number is required."),
        (not body, 21602, "Message body is required."),
        (len(body) > _LONGEST_BODY, 21617, "The concatenated message body exceeds the 1600 character limit."),
    )
    for wrong, code, said in faults:
        if wrong:
            return _problem(400, code, said)
    if to in _REFUSALS:
        status, code, said = _REFUSALS[to]
        return _problem(status, code, said.format(to=to), {"Retry-After": "1"} if status == 429 else {})
    return None


def _problem(status: int, code: int, said: str, headers: Mapping[str, str] | None = None) -> WebAnswer:
    body = {"code": code, "message": said, "more_info": f"https://www.twilio.com/docs/errors/{code}", "status": status}
    return WebAnswer(status, body, headers or {})
