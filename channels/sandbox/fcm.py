"""The sandbox's Firebase: hands out access tokens and takes pushes.

Device tokens whose beginning asks for something else: dead- UNREGISTERED (404) · invalid- not a token (400) · foreign-
another sender's (403) · busy- quota exceeded (429) · down- unavailable (503) · drop- taken, and hung up
"""

import secrets
from functools import cache
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tocsin.channels.sandbox.outbox import Outbox
from tocsin.channels.sandbox.web import HangUp, WebAnswer, WebRequest
from tocsin.domain.delivery import Channel

PROJECT: Final = "tocsin-sandbox"
CLIENT_EMAIL: Final = "sandbox@tocsin-sandbox.iam.gserviceaccount.test"
_KEY_BITS: Final = 2048
_LARGEST_MESSAGE: Final = 4_096

_REFUSALS: Final = {
    "dead-": (404, "NOT_FOUND", "UNREGISTERED", "Requested entity was not found."),
    "invalid-": (400, "INVALID_ARGUMENT", None, "The registration token is not a valid FCM registration token"),
    "foreign-": (403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH", "SenderId mismatch"),
    "busy-": (429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", "Quota exceeded"),
    "down-": (503, "UNAVAILABLE", "UNAVAILABLE", "The service is unavailable"),
}


class FcmServer:
    """Handles requests; `private_key` is the service account's, in PEM."""

    def __init__(self, outbox: Outbox) -> None:
        key = _account_key()
        self.private_key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        self._public_key = key.public_key()
        self._outbox = outbox
        self._access_token = secrets.token_urlsafe(32)

    async def handle(self, request: WebRequest) -> WebAnswer:
        """Answers one request."""
        if (request.method, request.path) == ("POST", "/token"):
            return self._sign_in(request.form().get("assertion", ""))
        if (request.method, request.path) != ("POST", f"/v1/projects/{PROJECT}/messages:send"):
            return _problem(404, "NOT_FOUND", None, "Not found")
        if request.headers.get("authorization") != f"Bearer {self._access_token}":
            return _problem(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR", "Request had invalid credentials.")
        return self._take(request)

    def _sign_in(self, assertion: str) -> WebAnswer:
        try:
            claims = jwt.decode(assertion, self._public_key, algorithms=["RS256"], options={"verify_aud": False})
        except jwt.PyJWTError:
            return WebAnswer(400, {"error": "invalid_grant", "error_description": "Invalid JWT"})
        if claims.get("iss") != CLIENT_EMAIL:
            return WebAnswer(400, {"error": "invalid_grant", "error_description": "Unknown account"})
        return WebAnswer(200, {"access_token": self._access_token, "expires_in": 3599, "token_type": "Bearer"})

    def _take(self, request: WebRequest) -> WebAnswer:
        try:
            message = request.json()["message"]
            token = str(message["token"])
        except (ValueError, KeyError, TypeError):
            return _problem(400, "INVALID_ARGUMENT", None, "message is missing")
        if len(request.body) > _LARGEST_MESSAGE:
            return _problem(400, "INVALID_ARGUMENT", None, "Message too big")
        for beginning, (status, word, code, said) in _REFUSALS.items():
            if token.startswith(beginning):
                return _problem(status, word, code, said)
        self._keep(token, message)
        if token.startswith("drop-"):
            raise HangUp
        return WebAnswer(200, {"name": f"projects/{PROJECT}/messages/0:{secrets.token_hex(8)}"})

    def _keep(self, token: str, message: dict[str, Any]) -> None:
        data, shown = message.get("data") or {}, message.get("notification") or {}
        attempt = str(data.get("attempt", ""))
        self._outbox.add(
            Channel.PUSH,
            token,
            delivery=data.get("delivery"),
            notification=data.get("notification"),
            attempt=int(attempt) if attempt.isdigit() else None,
            subject=shown.get("title"),
            text=shown.get("body") or "",
            raw=message,
        )


@cache
def _account_key() -> rsa.RSAPrivateKey:
    """One serves all servers of a process: to make it takes longer than they take to start."""
    return rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS)


def _problem(status: int, word: str, code: str | None, said: str) -> WebAnswer:
    details = [{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code}] if code else []
    body = {"error": {"code": status, "message": said, "status": word, "details": details}}
    return WebAnswer(status, body, {"Retry-After": "1"} if status in (429, 503) else {})
