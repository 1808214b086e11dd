"""The API of a running program, asked over one connection that is kept."""

import http.client
import json
import socket
import time
from typing import Any, Final

_KEPT_S: Final = 3.0
"""A server hangs up on a connection that lay idle for a few seconds."""


class NotFound(Exception):
    """It is not there, or not yet."""


class Api:
    """One connection with one credential."""

    def __init__(self, port: int, credential: str, timeout_s: float = 60.0) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
        self._used_s = -_KEPT_S
        self._headers = {"Authorization": f"Bearer {credential}", "Content-Type": "application/json"}

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer's document. Raises NotFound, and RuntimeError for another that is not a success."""
        text = json.dumps(body) if body is not None else None
        if time.monotonic() - self._used_s > _KEPT_S:
            self._connect()
        self._connection.request(method, path, text, self._headers)
        answer = self._connection.getresponse()
        told: dict[str, Any] = json.loads(answer.read())
        self._used_s = time.monotonic()
        if answer.status == 404:
            raise NotFound
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path} was answered {answer.status}: {told.get('code')}")
        return told

    def _connect(self) -> None:
        self._connection.close()
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        self._connection.close()
