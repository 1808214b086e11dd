"""Fakes of providers that are spoken to over HTTP: a sandbox server behind a gate that misbehaves."""

import asyncio
from collections.abc import Mapping
from typing import Any

from tests.fakes.behaviour import Behaviour
from tocsin.channels.sandbox.outbox import Outbox
from tocsin.channels.sandbox.web import HangUp, WebAnswer, WebRequest, WebServer


class WebFake:
    """Counts and gates the messages that are offered; a subclass says what is an offer and what a refusal."""

    def __init__(self) -> None:
        self.behaviour = Behaviour.TAKE
        self.asked = 0
        self.most_at_once = 0
        self.delay_s = 0.0
        self.answer: WebAnswer | None = None
        """Given to every offer instead of what the behaviour says."""
        self.outbox = Outbox()
        self.requests: list[WebRequest] = []
        self._at_once = 0
        self._server = WebServer(self._handle)
        self.url = ""

    async def start(self) -> None:
        self.url = await self._server.start()

    async def stop(self) -> None:
        await self._server.close()

    @property
    def taken(self) -> list[dict[str, Any]]:
        return [
            {"delivery": entry.delivery, "attempt": entry.attempt, "text": entry.text, "raw": entry.raw}
            for entry in self.outbox.entries()
        ]

    def is_offer(self, request: WebRequest) -> bool:
        raise NotImplementedError

    async def pass_on(self, request: WebRequest) -> WebAnswer:
        raise NotImplementedError

    def refusal(self, status: int, said: str) -> WebAnswer:
        raise NotImplementedError

    async def _handle(self, request: WebRequest) -> WebAnswer:
        if not self.is_offer(request):
            return await self.pass_on(request)
        self.asked += 1
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            return await self._meet(request)
        finally:
            self._at_once -= 1

    async def _meet(self, request: WebRequest) -> WebAnswer:
        self.requests.append(request)
        if self.answer is not None:
            return self.answer
        answers: Mapping[Behaviour, WebAnswer] = {
            Behaviour.REFUSE: self.refusal(400, "no"),
            Behaviour.FAIL: self.refusal(500, "broken"),
            Behaviour.BUSY: WebAnswer(429, self.refusal(429, "slower").body, {"Retry-After": "7"}),
            Behaviour.ECHO: self.refusal(400, f"{request.headers} {request.body.decode('utf-8', 'replace')}"),
        }
        if self.behaviour in answers:
            return answers[self.behaviour]
        answer = await self.pass_on(request)
        if self.behaviour is Behaviour.HANG:
            await asyncio.Event().wait()
        if self.behaviour is Behaviour.DROP:
            raise HangUp
        return WebAnswer(200, ["what?"]) if self.behaviour is Behaviour.GARBAGE else answer
