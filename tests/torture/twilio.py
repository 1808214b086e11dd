"""Twilio: takes messages, can be asked for them, and tells what became of them doubled, shuffled and late."""

import asyncio
import random
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs, urldefrag, urlsplit

import httpx

from tests.torture import moods
from tests.torture.doors import Doors
from tests.torture.ledger import Call, Ledger, Receipt, now_ms
from tests.torture.moods import Mood
from tests.torture.web import delivery_of, treat
from tocsin.channels.sandbox.signing import signature_of
from tocsin.channels.sandbox.web import WebAnswer, WebRequest

ACCOUNT = "AC" + "7" * 32
TOKEN = "torture-token-of-twilio"
FROM = "+15005550006"
_BASE = f"/2010-04-01/Accounts/{ACCOUNT}"
_TRIES = 4


@dataclass(slots=True)
class _Sms:
    call: Call
    form: Mapping[str, str]
    word: str = "queued"


class Twilio:
    """`doors` are the HTTP processes; a receipt goes to any of them, as through a balancer."""

    def __init__(self, ledger: Ledger, mood: Mood, chance: random.Random, doors: Sequence[str]) -> None:
        self.mood = mood
        self._ledger = ledger
        self._chance = chance
        self._doors = Doors(doors, chance, most=6, timeout_s=5)
        self._sent: dict[str, _Sms] = {}
        self._by_number: dict[str, list[str]] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self._refusals = {
            moods.LATER: _problem(500, 20500),
            moods.NEVER: _problem(400, 21211),
            moods.LIMITED: _problem(429, 20429, wait_s=1),
        }

    @property
    def telling(self) -> int:
        """How many receipts are still to be told."""
        return len(self._telling)

    async def handle(self, request: WebRequest) -> WebAnswer:
        parts = urlsplit(request.path)
        if (request.method, parts.path) == ("POST", f"{_BASE}/Messages.json"):
            return await self._create(request.form())
        if (request.method, parts.path) == ("GET", f"{_BASE}/Messages.json"):
            return self._list(parse_qs(parts.query))
        sid = parts.path.removeprefix(f"{_BASE}/Messages/").removesuffix(".json")
        if request.method == "GET" and sid in self._sent:
            return WebAnswer(200, self._resource(sid))
        return (
            WebAnswer(200, {"sid": ACCOUNT, "status": "active"})
            if parts.path == f"{_BASE}.json"
            else _problem(404, 20404)
        )

    async def close(self) -> None:
        for task in self._telling:
            task.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)
        await self._doors.close()

    async def _create(self, form: Mapping[str, str]) -> WebAnswer:
        delivery, attempt = delivery_of(form["StatusCallback"])
        call = Call("SMS", delivery, attempt, form["To"], now_ms())
        self._ledger.calls.append(call)
        sid = call.provider_id = "SM" + secrets.token_hex(16)
        self._sent[sid] = _Sms(call, form)
        try:
            return await treat(self.mood, call, self._refusals, WebAnswer(201, self._resource(sid)))
        finally:
            if call.accepted_ms is not None:
                self._by_number.setdefault(form["To"], []).append(sid)
                self._tell(sid, form["StatusCallback"])
            else:
                del self._sent[sid]

    def _tell(self, sid: str, callback: str) -> None:
        """Two words, each once or twice, in any order, some of them late; now and then none at all."""
        last = self._sent[sid].word = "undelivered" if self._chance.random() < 0.03 else "delivered"
        if self._chance.random() < 0.01:
            return
        for word in ("sent", last):
            for _ in range(2 if self._chance.random() < 0.3 else 1):
                delay_s = self._chance.uniform(3, 15) if self._chance.random() < 0.05 else self._chance.uniform(0, 1)
                task = asyncio.get_running_loop().create_task(self._post(sid, callback, word, delay_s))
                self._telling.add(task)
                task.add_done_callback(self._telling.discard)

    async def _post(self, sid: str, callback: str, word: str, delay_s: float) -> None:
        call = self._sent[sid].call
        url, _ = urldefrag(callback)
        fields = {"MessageSid": sid, "SmsSid": sid, "AccountSid": ACCOUNT, "MessageStatus": word, "To": call.to}
        fields |= {"ErrorCode": "30003"} if word == "undelivered" else {}
        headers = {"X-Twilio-Signature": signature_of(TOKEN, url, fields)}
        target = f"{urlsplit(url).path}?{urlsplit(url).query}"
        for _ in range(_TRIES):
            await asyncio.sleep(delay_s)
            try:
                answer = await self._doors.request("POST", target, data=fields, headers=headers)
            except httpx.HTTPError:
                delay_s = 1.0
                continue
            if answer.status_code < 400:
                self._ledger.receipts.append(Receipt(call.delivery, call.attempt, word, now_ms()))
                return
            if answer.status_code < 500:
                self._ledger.trouble.append(f"a receipt was answered {answer.status_code}: {answer.text[:200]}")
                return
            delay_s = 1.0

    def _list(self, asked: Mapping[str, Sequence[str]]) -> WebAnswer:
        sids = self._by_number.get(asked.get("To", [""])[0], [])
        return WebAnswer(200, {"messages": [self._resource(sid) for sid in reversed(sids)], "next_page_uri": None})

    def _resource(self, sid: str) -> dict[str, Any]:
        sms = self._sent[sid]
        made = format_datetime(datetime.fromtimestamp(sms.call.at_ms / 1000, UTC))
        return {
            "sid": sid,
            "account_sid": ACCOUNT,
            "api_version": "2010-04-01",
            "body": sms.form["Body"],
            "date_created": made,
            "date_updated": made,
            "date_sent": made,
            "direction": "outbound-api",
            "error_code": None,
            "error_message": None,
            "from": sms.form["From"],
            "messaging_service_sid": None,
            "num_media": "0",
            "num_segments": "1",
            "price": None,
            "price_unit": "USD",
            "status": sms.word,
            "subresource_uris": {},
            "to": sms.call.to,
            "uri": f"{_BASE}/Messages/{sid}.json",
        }


def _problem(status: int, code: int, wait_s: int | None = None) -> WebAnswer:
    body = {"code": code, "message": "refused", "more_info": "", "status": status}
    return WebAnswer(status, body, {"Retry-After": str(wait_s)} if wait_s else {})
