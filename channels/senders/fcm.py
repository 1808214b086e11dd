"""Sends pushes with firebase-admin, one POST a device as FCM's own batches do, in threads of its own.

`messaging.send_each` would start a thread for every message of a batch, and could not tell which of them were handed
over when time is up. What it would send is sent through the same service here, bounded.
"""

import asyncio
import threading
import time
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, Final
from uuid import uuid4

import firebase_admin
import requests
from firebase_admin import exceptions, messaging
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import Request
from google.oauth2 import service_account

from tocsin.channels.contract import BuildContext, Message, Outcome, OutcomeKind
from tocsin.channels.fcm import SECTION, FcmSettings
from tocsin.channels.links import action_link
from tocsin.channels.senders.fcm_answers import Answer, combined, read_refusal
from tocsin.channels.senders.threads import NotBegun, StillRunning, Threads
from tocsin.channels.senders.transport import UNREADABLE, Call, after_error, not_begun, prepare
from tocsin.domain.delivery import Channel, Reason
from tocsin.domain.errors import SettingError
from tocsin.domain.plan import Priority
from tocsin.domain.text import fit_characters, one_line, plain

_SCOPES: Final = ("https://www.googleapis.com/auth/firebase.messaging",)
_BATCH: Final = 500
"""FCM's own limit of one call."""
_FEWEST_THREADS: Final = 16
_LONGEST_TITLE: Final = 100
_TOO_MANY: Final = 429
_LONGEST_LINK: Final = 1_000
"""Leaves room for the rest within FCM's 4,096 bytes."""


class FcmSender:
    """Pushes to the devices of one Firebase project."""

    channel = Channel.PUSH
    configured = True

    def __init__(self, settings: FcmSettings, context: BuildContext, provider: str) -> None:
        self.provider = provider
        self.concurrency = settings.concurrency
        self.rate = settings.limit
        self.timeout_s = settings.timeout / 1000
        self._context = context
        self._private = tuple(filter(None, (settings.client_email, settings.private_key)))
        threads = max(settings.concurrency, _FEWEST_THREADS)
        self._credential = _credentials(settings)
        self._app = _app(settings, self._credential)
        self._service = _service(self._app, settings, threads)
        self._sign_in_session = requests.Session()
        prepare(self._sign_in_session, settings.base_url, connections=1, timeout_s=self.timeout_s)
        self._signing_in = threading.Lock()
        self._threads = Threads(threads, "fcm")
        self._closed = False

    async def send(self, message: Message) -> Outcome:
        tokens = tuple(dict.fromkeys(filter(None, message.tokens or (message.address,))))
        if not tokens:
            return Outcome(OutcomeKind.PERMANENT, Reason.NO_ADDRESS, message="no device")
        ends_s = time.monotonic() + self.timeout_s
        refused = await self._sign_in(self.timeout_s)
        if refused:
            return refused
        if len(tokens) == 1:
            return combined([await self._send_one(message, tokens[0], ends_s)], (*self._private, *tokens))
        answers: list[Answer] = []
        for first in range(0, len(tokens), _BATCH):
            batch = tokens[first : first + _BATCH]
            answers += await asyncio.gather(*(self._send_one(message, token, ends_s) for token in batch))
        return combined(answers, (*self._private, *tokens))

    async def check(self) -> None:
        outcome = await self._sign_in(self.timeout_s)
        if outcome:
            raise SettingError(f"{SECTION}: Firebase does not accept these credentials: {outcome.message}")

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._threads.close()
        self._sign_in_session.close()
        # The SDK closes only its asynchronous client.
        self._service._client.session.close()
        # Deleting an app runs an event loop of its own, which only another thread can.
        await asyncio.to_thread(firebase_admin.delete_app, self._app)

    async def _sign_in(self, timeout_s: float) -> Outcome | None:
        """Fetches an access token where none is good; the outcome if that fails. Done apart, so that what goes wrong
        here is known not to have sent anything."""
        if self._credential.valid:
            return None
        call = Call(self._refresh)
        try:
            await self._threads.run(call, timeout_s)
        except (NotBegun, StillRunning):
            return not_begun()
        except (GoogleAuthError, requests.RequestException, OSError, *UNREADABLE) as error:
            status = call.answer.status_code if call.answer is not None else 0
            if 400 <= status < 500 and status != _TOO_MANY:
                return Outcome(OutcomeKind.PERMANENT, Reason.NOT_CONFIGURED, message="Google refused the credentials")
            return replace(not_begun(error), message="no access token from Google") if status else not_begun(error)
        return None

    def _refresh(self) -> None:
        with self._signing_in:
            if not self._credential.valid:
                self._credential.refresh(Request(self._sign_in_session))  # type: ignore[no-untyped-call]

    async def _send_one(self, message: Message, token: str, ends_s: float) -> Answer:
        push = self._push(message, token)
        call = Call(partial(messaging.send, push, app=self._app))
        try:
            name = await self._threads.run(call, ends_s - time.monotonic())
        except NotBegun:
            return Answer(token, not_begun())
        except StillRunning:
            return Answer(token, after_error(call))
        except exceptions.FirebaseError as error:
            return read_refusal(token, call, error)
        except (GoogleAuthError, requests.RequestException, OSError, *UNREADABLE) as error:
            return Answer(token, after_error(call, error))
        return Answer(token, Outcome(OutcomeKind.SENT, provider_id=str(name)))

    def _push(self, message: Message, token: str) -> Any:
        title, body = _shown(message.title or self._context.brand, message.text, self._context.push_characters)
        urgent = message.priority in (Priority.HIGH, Priority.CRITICAL)
        delivery = str(message.delivery)
        push = messaging.Message(
            data=self._data(message),
            notification=messaging.Notification(title=title, body=body),
            # One tag a delivery: a repeated attempt replaces what is shown, instead of showing it twice.
            android=messaging.AndroidConfig(
                priority="high" if urgent else "normal", notification=messaging.AndroidNotification(tag=delivery)
            ),
            apns=messaging.APNSConfig(
                headers={"apns-priority": "10" if urgent else "5", "apns-collapse-id": delivery},
                payload=messaging.APNSPayload(aps=messaging.Aps(sound="default" if urgent else None)),
            ),
        )
        # Given to the constructor it would warn that tokens give way to installation ids, which no client sends yet.
        push.token = token
        return push

    def _data(self, message: Message) -> dict[str, str]:
        link = action_link(message.metadata, self._context.public_url)
        return {
            "delivery": str(message.delivery),
            "notification": str(message.notification),
            "event": str(message.event),
            "attempt": str(message.attempt),
            "type": message.event_type,
            **({"actionUrl": link} if link and len(link) <= _LONGEST_LINK else {}),
        }


@lru_cache(maxsize=64)
def _shown(title: str, text: str, most: int) -> tuple[str, str]:
    return fit_characters(one_line(title), _LONGEST_TITLE), fit_characters(plain(text).strip(), most)


class _Credentials(service_account.Credentials):
    """Asks for access tokens and nothing else. Google's own would also ask iamcredentials.googleapis.com, in a thread
    that nothing waits for, where the account may act: even when base_url keeps everything else on this machine."""

    def before_request(self, request: Any, method: str, url: str, headers: Any) -> None:
        if not self.valid:
            self.refresh(request)  # type: ignore[no-untyped-call]
        self.apply(headers)  # type: ignore[no-untyped-call]


def _credentials(settings: FcmSettings) -> _Credentials:
    info = {
        "type": "service_account",
        "project_id": settings.project_id,
        # An environment variable holds a key with its line ends written as \n.
        "private_key": (settings.private_key or "").replace("\\n", "\n"),
        "client_email": settings.client_email,
        "token_uri": settings.token_uri,
    }
    try:
        made: _Credentials = _Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
            info, scopes=_SCOPES
        )
    except ValueError:
        raise SettingError(f"{SECTION}.private_key: not a private key in PEM form") from None
    return made


def _app(settings: FcmSettings, credential: _Credentials) -> Any:
    options = {"projectId": settings.project_id, "httpTimeout": settings.timeout / 1000}
    return firebase_admin.initialize_app(credential, options, name=f"tocsin-{uuid4().hex}")


def _service(app: Any, settings: FcmSettings, connections: int) -> Any:
    """The SDK's service, pointed at `base_url` and without its hidden retries: a time-out would make a duplicate."""
    service = messaging._get_messaging_service(app)  # there is no public way
    service._fcm_url = f"{settings.base_url.rstrip('/')}/v1/projects/{settings.project_id}/messages:send"
    prepare(
        service._client.session,
        settings.base_url,
        connections=connections,
        timeout_s=settings.timeout / 1000,
    )
    return service
