"""A Twilio that misbehaves."""

from collections.abc import Mapping
from typing import Any

from tests.fakes.web import WebFake
from tocsin.channels.sandbox.twilio import FROM_NUMBER, TwilioServer
from tocsin.channels.sandbox.web import WebAnswer, WebRequest


class TwilioFake(WebFake):
    async def start(self) -> None:
        self.server = TwilioServer(self.outbox, receipt_delay_s=0.001)
        self.secrets = (self.server.auth_token, self.server.account_sid)
        await super().start()

    async def stop(self) -> None:
        await super().stop()
        await self.server.close()

    def table(self) -> Mapping[str, Any]:
        return {
            "account_sid": self.server.account_sid,
            "auth_token": self.server.auth_token,
            "from_number": FROM_NUMBER,
            "base_url": self.url,
        }

    def wrong_credentials(self) -> Mapping[str, Any]:
        return {"auth_token": "wrong"}

    def is_offer(self, request: WebRequest) -> bool:
        return request.method == "POST" and request.path.endswith("/Messages.json")

    async def pass_on(self, request: WebRequest) -> WebAnswer:
        return await self.server.handle(request)

    def refusal(self, status: int, said: str) -> WebAnswer:
        code = {429: 20429, 500: 20500}.get(status, 30007)
        return WebAnswer(status, {"code": code, "message": said, "more_info": "", "status": status})


FAKE = TwilioFake
ASKABLE = True
"""Its sender can be asked what became of a message."""
