"""Twilio and FCM, to which the real SDKs talk: they take and refuse as their mood is, and note what they took."""

import asyncio
import secrets
from urllib.parse import parse_qs, urlsplit

from tests.torture import moods
from tests.torture.ledger import Call, Ledger, now_ms
from tests.torture.moods import Mood
from tocsin.channels.sandbox import fcm
from tocsin.channels.sandbox.fcm import FcmServer
from tocsin.channels.sandbox.outbox import Outbox
from tocsin.channels.sandbox.web import Handler, HangUp, WebAnswer, WebRequest, WebServer


class Door(WebServer):
    """A server that can be shut and opened again on its port."""

    def __init__(self, handler: Handler) -> None:
        super().__init__(handler)
        self._port = 0

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port, limit=2**16)
        self._port = self._server.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{self._port}"


async def treat(mood: Mood, call: Call, refusals: dict[str, WebAnswer], taken: WebAnswer) -> WebAnswer:
    """Answers one message as the mood is. `taken` is what is said when it was taken. Raises HangUp."""
    what = mood.draw()
    if what in (moods.STALL_BEFORE, moods.DROP_BEFORE):
        await asyncio.sleep(moods.STALL_S if what == moods.STALL_BEFORE else 0)
        raise HangUp
    if what in refusals:
        call.told = "no"
        return refusals[what]
    call.accepted_ms = now_ms()
    if what == moods.DROP_AFTER:
        raise HangUp
    await asyncio.sleep(moods.STALL_S if what == moods.STALL_AFTER else 0)
    call.told = "yes"
    return taken


class Fcm:
    """Firebase: the sandbox's for signing in, its own for messages. Tokens that begin with "dead-" are unregistered."""

    def __init__(self, ledger: Ledger, mood: Mood) -> None:
        self.mood = mood
        self.server = FcmServer(Outbox())
        self._ledger = ledger
        self._refusals = {
            moods.LATER: _problem(503, "UNAVAILABLE", "UNAVAILABLE"),
            moods.NEVER: _problem(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"),
            moods.LIMITED: _problem(503, "UNAVAILABLE", "UNAVAILABLE", wait_s=2),
        }

    async def handle(self, request: WebRequest) -> WebAnswer:
        if not request.path.endswith("messages:send"):
            return await self.server.handle(request)
        message = request.json()["message"]
        call = Call("PUSH", message["data"]["delivery"], int(message["data"]["attempt"]), message["token"], now_ms())
        self._ledger.calls.append(call)
        if call.to.startswith("dead-"):
            call.told = "no"
            return _problem(404, "NOT_FOUND", "UNREGISTERED")
        call.provider_id = f"projects/{fcm.PROJECT}/messages/0:{secrets.token_hex(8)}"
        return await treat(self.mood, call, self._refusals, WebAnswer(200, {"name": call.provider_id}))


def delivery_of(callback: str) -> tuple[str, int]:
    """The delivery and the attempt that a status callback's address names."""
    named = parse_qs(urlsplit(callback).query)
    return named["delivery"][0], int(named["attempt"][0])


def _problem(status: int, word: str, code: str, wait_s: int | None = None) -> WebAnswer:
    details = [{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code}]
    body = {"error": {"code": status, "message": code, "status": word, "details": details}}
    return WebAnswer(status, body, {"Retry-After": str(wait_s)} if wait_s else {})
