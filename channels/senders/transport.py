"""HTTP under the SDKs that use `requests`: no retries of its own, exact time-outs, and knowledge of whether anything
was handed over. Twilio and FCM both classify what happened here, so it is written once.
"""

import math
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Any, Final, Generic, TypeVar
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from tocsin.channels.contract import Outcome, OutcomeKind
from tocsin.channels.trust import is_untrusted
from tocsin.domain.delivery import Reason

T = TypeVar("T")
_CONNECT_SHARE: Final = 0.3
_READ_SHARE: Final = 0.65
"""Shares of a send's time-out. Together a little less than the whole, so that what happened is known in time."""
_LONGEST_RETRY_AFTER_S: Final = 86_400.0

UNREADABLE: Final = (AttributeError, KeyError, TypeError, ValueError)
"""What the SDKs raise over an answer that is not as their provider answers."""

_running = threading.local()


class GivenUp(OSError):
    """A call came to its request after its time was over."""


class Call(Generic[T]):
    """Work that makes requests in one thread. Remembers whether any of the last one was written to a connection, and
    its answer, as soon as that has begun."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._handing_over = threading.Lock()
        self._given_up = False
        self.handed_over = False
        self.answer: requests.Response | None = None

    def note(self, *, handed_over: bool) -> None:
        """Raises GivenUp instead of handing anything over that nobody waits for any more."""
        with self._handing_over:
            if handed_over and self._given_up:
                raise GivenUp("its time was over")
            self.handed_over = handed_over

    def give_up(self) -> None:
        """From now on nothing is handed over that was not by now."""
        with self._handing_over:
            self._given_up = True

    def __call__(self) -> T:
        _running.call = self
        try:
            return self._work()
        finally:
            _running.call = None


class _Noting:
    """Connections that tell the running `Call` when a request's first byte goes out."""

    sock: Any

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        # What a proxy was asked on the way is not the request.
        _note(handed_over=False)

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        _note(handed_over=True)
        super().send(data)  # type: ignore[misc]


class _PlainConnection(_Noting, HTTPConnection):
    pass


class _TlsConnection(_Noting, HTTPSConnection):
    pass


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Adapter(HTTPAdapter):
    """Never retries, since a second POST would be a second message; keeps to its own time-outs."""

    def __init__(self, connections: int, timeout_s: float) -> None:
        self._timeouts = (timeout_s * _CONNECT_SHARE, timeout_s * _READ_SHARE)
        super().__init__(pool_maxsize=connections, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _use_noting_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        _use_noting_pools(manager)
        return manager

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        _note(handed_over=False)
        response = super().send(request, *args, **(kwargs | {"timeout": self._timeouts}))
        call: Call[Any] | None = getattr(_running, "call", None)
        if call is not None:
            call.answer = response
        return response


def prepare(session: requests.Session, base_url: str, *, connections: int, timeout_s: float) -> None:
    """Makes `session` send everything as this module promises."""
    adapter = _Adapter(connections, timeout_s)
    session.adapters.clear()
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    if is_loopback(base_url):
        # A proxy that the environment names cannot reach a server on this machine.
        session.trust_env = False


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def after_error(call: Call[Any], error: BaseException | None = None) -> Outcome:
    """The outcome of a call that ended in an error, or (without one) that is still under way when time is up. It is
    known to have failed if it was answered so, or if nothing of it was written; otherwise it is unknown."""
    call.give_up()
    if call.answer is not None:
        return after_status(call.answer.status_code, call.answer.headers)
    if not call.handed_over:
        return not_begun(error)
    if error is None or isinstance(error, requests.Timeout | TimeoutError):
        return Outcome(OutcomeKind.UNKNOWN, Reason.TIMEOUT, message="handed over, then no answer in time")
    said = f"handed over, then the connection was lost ({type(error).__name__})"
    return Outcome(OutcomeKind.UNKNOWN, Reason.CONNECTION_LOST, message=said)


def not_begun(error: BaseException | None = None) -> Outcome:
    """The outcome of a call that handed nothing over."""
    said = "the provider's certificate cannot be verified" if is_untrusted(error) else "no connection to the provider"
    return Outcome(OutcomeKind.TEMPORARY, Reason.PROVIDER_DOWN, message=said)


def after_status(status: int, headers: Mapping[str, str] | None = None) -> Outcome:
    """The outcome that an HTTP status alone tells; for answers whose body says nothing more exact."""
    kind, reason = _KINDS.get(status) or _kind_of_class(status)
    asked = retry_after_s(headers) if kind is OutcomeKind.TEMPORARY else None
    return Outcome(kind, reason, code=str(status), message=f"HTTP {status}", retry_after_s=asked)


def retry_after_s(headers: Mapping[str, str] | None) -> float | None:
    """The seconds of a Retry-After header, which holds a number or a date; at most a day. None where there is none
    that can be understood."""
    value = next((text for name, text in (headers or {}).items() if name.lower() == "retry-after"), "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(0.0, seconds), _LONGEST_RETRY_AFTER_S) if math.isfinite(seconds) else None


_KINDS: Final = {
    401: (OutcomeKind.PERMANENT, Reason.NOT_CONFIGURED),
    403: (OutcomeKind.PERMANENT, Reason.NOT_CONFIGURED),
    408: (OutcomeKind.TEMPORARY, Reason.TIMEOUT),
    429: (OutcomeKind.TEMPORARY, Reason.RATE_LIMITED),
    # A gateway that lost the provider behind it cannot say whether the request was carried out.
    502: (OutcomeKind.UNKNOWN, Reason.CONNECTION_LOST),
    504: (OutcomeKind.UNKNOWN, Reason.TIMEOUT),
}


def _kind_of_class(status: int) -> tuple[OutcomeKind, Reason]:
    if status >= 500:
        return OutcomeKind.TEMPORARY, Reason.PROVIDER_DOWN
    if status >= 300:
        return OutcomeKind.PERMANENT, Reason.REJECTED
    # A yes that cannot be read is no yes.
    return OutcomeKind.UNKNOWN, Reason.CONNECTION_LOST


def _note(*, handed_over: bool) -> None:
    call: Call[Any] | None = getattr(_running, "call", None)
    if call is not None:
        call.note(handed_over=handed_over)


def _use_noting_pools(manager: Any) -> None:
    manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}
