"""A Firebase that misbehaves."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.fakes.web import WebFake
from tocsin.channels.sandbox.fcm import CLIENT_EMAIL, PROJECT, FcmServer
from tocsin.channels.sandbox.web import WebAnswer, WebRequest


@cache
def another_key() -> str:
    """A private key that nobody knows."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


class FcmFake(WebFake):
    async def start(self) -> None:
        self.server = FcmServer(self.outbox)
        self.secrets = (self.server.private_key, self.server.private_key.splitlines()[3], CLIENT_EMAIL)
        await super().start()

    def table(self) -> Mapping[str, Any]:
        return {
            "project_id": PROJECT,
            "private_key": self.server.private_key,
            "client_email": CLIENT_EMAIL,
            "base_url": self.url,
        }

    def wrong_credentials(self) -> Mapping[str, Any]:
        return {"private_key": another_key()}

    def is_offer(self, request: WebRequest) -> bool:
        return request.path.endswith("messages:send")

    async def pass_on(self, request: WebRequest) -> WebAnswer:
        return await self.server.handle(request)

    def refusal(self, status: int, said: str) -> WebAnswer:
        word = {400: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED", 500: "INTERNAL"}[status]
        return WebAnswer(status, {"error": {"code": status, "message": said, "status": word, "details": []}})


FAKE = FcmFake
