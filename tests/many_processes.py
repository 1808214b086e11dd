"""What tests of many processes beside each other share: short times, steady load, and what became of it."""

import random
import threading
import time
from typing import Self

import httpx

from tests.program import ADMIN_KEY
from tests.stored import rows_of

LEASE_S = 3.5
SHORT = {
    "TOCSIN_ACTORS__LEASE": f"{int(LEASE_S * 1000)}ms",
    "TOCSIN_ACTORS__SHUTDOWN": "3s",
    "TOCSIN_HTTP__SHUTDOWN": "2s",
    "TOCSIN_EMAIL__SMTP__TIMEOUT": "1s",
    "TOCSIN_SMS__TWILIO__TIMEOUT": "1s",
    "TOCSIN_PUSH__FCM__TIMEOUT": "1s",
}


def mails(postgres_url: str) -> dict[str, tuple[str, bool]]:
    """Of each mail, its status and whether its outcome was unknown at a time."""
    told = "select id::text, status, history::text like '%:UNCERTAIN%' from deliveries where channel = 'EMAIL'"
    return {identifier: (status, unknown) for identifier, status, unknown in rows_of(postgres_url, told)}


class Background:
    """Works in a thread of its own, until the end of a `with` block."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.work, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def work(self) -> None:
        """To be done by each kind; ends soon after `_stop` is set."""
        raise NotImplementedError


class Load(Background):
    """Posts steadily to whichever process answers; keeps what was accepted."""

    def __init__(self, urls: list[str]) -> None:
        super().__init__()
        self.urls = urls
        self.accepted: set[str] = set()

    def work(self) -> None:
        with httpx.Client(timeout=10, trust_env=False) as api:
            self._post_steadily(api)

    def _post_steadily(self, api: httpx.Client) -> None:
        number = 0
        while not self._stop.wait(0.03):
            number += 1
            person = {"id": f"u{number}", "email": f"u{number}@example.org"}
            event = {"type": "x.y", "message": "x", "recipients": [person], "channels": ["EMAIL"]}
            event["notificationPriority"] = "HIGH"  # at once
            # The key makes the repetition, at another process, the same request.
            headers = {"Authorization": f"Bearer {ADMIN_KEY}", "Idempotency-Key": f"k{number}"}
            for url in random.sample(self.urls, len(self.urls)) * 20:
                try:
                    answer = api.post(f"{url}/api/notifications", json=event, headers=headers)
                except httpx.TransportError:
                    time.sleep(0.05)
                    continue
                if answer.status_code == 202:
                    self.accepted.add(answer.json()["notifications"][0]["id"])
                    break
                time.sleep(0.1)
