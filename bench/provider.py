"""Providers that take everything, as light as they can be: a mail server, Twilio and FCM in one process of its own.

    provider.py <port>

Mail goes to the SMTP port that /counts names, Twilio and FCM to <port>. `GET /reset?delay_ms=25` forgets what came and
lets each message wait so long for its answer, as a provider far away does; `GET /counts` tells how many came, and when.
"""

import asyncio
import json
import sys
import time
from array import array
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import uvloop

_ACCOUNT: Final = "/Messages.json"
_PUSH: Final = "messages:send"
_EHLO: Final = b"250-bench\r\n250-SIZE 10000000\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"
_REPLIES: Final = {
    b"EHLO": _EHLO,
    b"HELO": b"250 bench\r\n",
    b"MAIL": b"250 2.1.0 OK\r\n",
    b"RCPT": b"250 2.1.5 OK\r\n",
    b"DATA": b"354 go on\r\n",
    b"RSET": b"250 OK\r\n",
    b"NOOP": b"250 OK\r\n",
    b"QUIT": b"221 bye\r\n",
}


class Counts:
    """When each message came, in seconds since 1970, by channel; and after how long it is answered."""

    def __init__(self) -> None:
        self.forget(0)

    def forget(self, delay_ms: float) -> None:
        """Begins anew."""
        self.delay_s = delay_ms / 1000
        self.arrived = {channel: array("d") for channel in ("EMAIL", "SMS", "PUSH")}

    def add(self, channel: str) -> int:
        """Counts one that came now; answers the how many-th it is."""
        arrived = self.arrived[channel]
        arrived.append(time.time())
        return len(arrived)

    def told(self) -> dict[str, Any]:
        """How many came by channel, and when each twentieth part of them had."""
        return {
            channel: {"count": len(at), "at_s": [at[(len(at) - 1) * part // 20] for part in range(21)] if at else []}
            for channel, at in self.arrived.items()
        }


class Mail(asyncio.Protocol):
    """One connection of a mail client."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._received = b""
        self._in_body = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(b"220 bench ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._received += data
        while True:
            end = b"\r\n.\r\n" if self._in_body else b"\r\n"
            part, found, rest = self._received.partition(end)
            if not found:
                return
            self._received = rest
            self._take_body() if self._in_body else self._take_line(part)

    def _take_line(self, line: bytes) -> None:
        word = line[:4].upper()
        self._transport.write(_REPLIES.get(word, b"502 not here\r\n"))
        self._in_body = word == b"DATA"

    def _take_body(self) -> None:
        self._in_body = False
        answer = b"250 2.0.0 OK: queued as %X\r\n" % self._counts.add("EMAIL")
        _later(self._counts.delay_s, self._transport, answer)


class Web(asyncio.Protocol):
    """One connection of an HTTP client."""

    def __init__(self, counts: Counts, smtp_port: int) -> None:
        self._counts = counts
        self._smtp_port = smtp_port
        self._received = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end]
            place = head.lower().find(b"\r\ncontent-length:")
            size = int(head[place + 17 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
            if len(self._received) < end + 4 + size:
                return
            self._received = self._received[end + 4 + size :]
            self._answer(head.split(b" ", 2)[1].decode())

    def _answer(self, target: str) -> None:
        path = urlsplit(target).path
        if path.endswith(_ACCOUNT):
            sid = f"SM{self._counts.add('SMS'):032x}"
            self._say(201, {"sid": sid, "status": "queued"}, self._counts.delay_s)
        elif path.endswith(_PUSH):
            self._say(200, {"name": f"projects/bench/messages/{self._counts.add('PUSH')}"}, self._counts.delay_s)
        elif path.endswith("/token"):
            self._say(200, {"access_token": "bench", "expires_in": 3_599, "token_type": "Bearer"})
        elif path == "/reset":
            self._counts.forget(float(parse_qs(urlsplit(target).query).get("delay_ms", ["0"])[0]))
            self._say(200, {})
        else:
            self._say(200, self._counts.told() | {"smtp_port": self._smtp_port})

    def _say(self, status: int, body: dict[str, Any], delay_s: float = 0.0) -> None:
        text = json.dumps(body).encode()
        head = f"HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
        _later(delay_s, self._transport, head.encode() + text)


def _later(delay_s: float, transport: Any, answer: bytes) -> None:
    if delay_s:
        asyncio.get_running_loop().call_later(delay_s, transport.write, answer)
    else:
        transport.write(answer)


async def main(port: int) -> None:
    counts, loop = Counts(), asyncio.get_running_loop()
    mail = await loop.create_server(lambda: Mail(counts), "127.0.0.1", 0)
    smtp_port = mail.sockets[0].getsockname()[1]
    web = await loop.create_server(lambda: Web(counts, smtp_port), "127.0.0.1", port)
    await asyncio.gather(mail.serve_forever(), web.serve_forever())


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
