"""A running Tocsin as its callers see it: the command line speaks with it over HTTP alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, urlsplit
from uuid import uuid4

import click
import httpx

_TIMEOUT_S: Final = 15.0
_TRIES: Final = 3
_PAUSE_S: Final = 0.2
_SILENT_S: Final = 40.0
"""How long a stream may say nothing at all; it says that it is alive every 15 seconds."""
_LONGEST_WAIT_S: Final = 5.0
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_NAMED: Final = 10
"""How many people are named in a refusal."""


class Refused(click.ClickException):
    """The server answered with a problem; `document` is its RFC 9457 document."""

    def __init__(self, status: int, document: Mapping[str, Any]) -> None:
        self.status = status
        self.document = dict(document)
        super().__init__(_sentence(status, document))

    @property
    def code(self) -> str:
        """The problem's stable code; empty where something else than Tocsin answered."""
        return str(self.document.get("code", ""))


class NoAnswer(click.ClickException):
    """No server answers at the address."""


class Server:
    """One server and the token to show it. Use as an async context; every method raises Refused or NoAnswer."""

    def __init__(self, url: str, token: str | None, *, limit_s: float = _TIMEOUT_S) -> None:
        self.url = url.rstrip("/")
        self.token = token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # A proxy of the environment cannot reach this machine's own loopback.
        self._http = httpx.AsyncClient(
            base_url=self.url, headers=headers, timeout=limit_s, trust_env=not is_loopback(self.url)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    def as_other(self, token: str) -> Server:
        """The same server with another token, such as a user's; to be closed on its own."""
        return Server(self.url, token)

    async def get(self, path: str, **query: Any) -> Any:
        """The answer to a GET; of `query` only what is not None is sent."""
        return await self._ask("GET", path, params={name: value for name, value in query.items() if value is not None})

    async def put(self, path: str, body: Mapping[str, Any]) -> Any:
        return await self._ask("PUT", path, json=dict(body))

    async def delete(self, path: str) -> Any:
        return await self._ask("DELETE", path)

    async def post(self, path: str, body: Mapping[str, Any] | None = None, *, limit_s: float = _TIMEOUT_S) -> Any:
        """The answer to a POST. An Idempotency-Key of its own makes it safe to try again when no answer came."""
        extra: dict[str, Any] = {"timeout": limit_s} if body is None else {"timeout": limit_s, "json": dict(body)}
        return await self._ask("POST", path, headers={"Idempotency-Key": str(uuid4())}, **extra)

    async def pages(self, path: str, most: int, **query: Any) -> AsyncIterator[dict[str, Any]]:
        """Up to `most` rows of a list, page after page."""
        cursor: str | None = None
        while most > 0:
            page = await self.get(path, limit=min(most, 200), cursor=cursor, **query)
            for row in page["data"][:most]:
                yield row
            most -= len(page["data"])
            cursor = page.get("nextCursor")
            if cursor is None:
                return

    async def stream(self, path: str) -> AsyncGenerator[dict[str, Any]]:
        """What an event stream tells, until the server says that nothing more will come. A stream that breaks off is
        taken up where it was."""
        last, tries = "", 0
        while tries < _TRIES:
            try:
                headers = {"Last-Event-ID": last} if last else {}
                async with self._http.stream("GET", path, headers=headers, timeout=_SILENT_S) as response:
                    if not response.is_success:
                        await response.aread()
                        _document(response)
                    if response.status_code == 204:
                        return
                    async for identifier, told in _told(response):
                        last, tries = identifier, 0
                        yield told
            except httpx.TransportError as error:
                if tries + 1 == _TRIES:
                    raise NoAnswer(f"{self.url} broke off the exchange ({type(error).__name__}).") from error
            tries += 1
            await asyncio.sleep(_PAUSE_S * tries)

    async def _ask(self, method: str, path: str, **given: Any) -> Any:
        for attempt in range(1, _TRIES + 1):
            response = await self._send(method, path, last=attempt == _TRIES, **given)
            if response is None:
                await asyncio.sleep(_PAUSE_S * attempt)
            elif response.status_code == 503 and attempt < _TRIES:
                await asyncio.sleep(_wait_s(response))
            else:
                return _document(response)
        raise AssertionError("the last try answers or raises")

    async def _send(self, method: str, path: str, *, last: bool, **given: Any) -> httpx.Response | None:
        try:
            return await self._http.request(method, path, **given)
        except httpx.ConnectError as error:
            raise NoAnswer(
                f"No server answers at {self.url}. Start one with `tocsin serve`, or name it with --url or TOCSIN_URL."
            ) from error
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise click.UsageError(f"{self.url} is not an address such as http://127.0.0.1:8000") from error
        except httpx.TransportError as error:
            if last:
                raise NoAnswer(f"{self.url} broke off the exchange ({type(error).__name__}).") from error
            return None


def segment(text: str) -> str:
    """`text` as one segment of a path."""
    return quote(text, safe="")


def is_loopback(url: str) -> bool:
    """Whether `url` is on this machine."""
    return urlsplit(url).hostname in _LOOPBACK


def _wait_s(response: httpx.Response) -> float:
    asked = response.headers.get("Retry-After", "")
    return min(float(asked), _LONGEST_WAIT_S) if asked.isdecimal() else 1.0


async def _told(response: httpx.Response) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """The id and the data of each event of a stream."""
    identifier = ""
    async for line in response.aiter_lines():
        name, _, value = line.partition(": ")
        if name == "id":
            identifier = value
        elif name == "data":
            yield identifier, json.loads(value)


def _document(response: httpx.Response) -> Any:
    if response.is_success:
        if response.status_code == 204 or not response.content:
            return None
        try:
            return response.json()
        except json.JSONDecodeError as error:
            title = "The answer is not JSON; is this a Tocsin server?"
            raise Refused(response.status_code, {"title": title}) from error
    try:
        document = response.json()
    except json.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        document = {"title": f"The server answered {response.status_code} {response.reason_phrase}".rstrip()}
    raise Refused(response.status_code, document)


def _sentence(status: int, document: Mapping[str, Any]) -> str:
    """The problem in words: what is wrong, where, and the mend."""
    told = [str(document.get("detail") or document.get("title") or f"The server answered {status}.")]
    if field := document.get("field"):
        told[0] = f"{field}: {told[0]}"
    if mend := document.get("mend"):
        told.append(str(mend))
    if unknown := document.get("unknownIds"):
        more = ", …" if len(unknown) > _NAMED else ""
        told.append(f"Not known: {', '.join(map(str, unknown[:_NAMED]))}{more}.")
    if code := document.get("code"):
        told.append(f"({code})")
    return " ".join(told)
