"""What tests of stopping share: short times, work to be stopped in, and how long the end takes."""

import signal
import time

import httpx

from tests.program import Program, posted
from tests.stored import rows_of

HTTP_S, ACTORS_S = 1, 3
SLACK_S = 5.0
"""What the program allows itself beside its set times before it ends itself."""

SHORT = {
    "TOCSIN_HTTP__SHUTDOWN": f"{HTTP_S}s",
    "TOCSIN_ACTORS__SHUTDOWN": f"{ACTORS_S}s",
    "TOCSIN_ACTORS__LEASE": "7s",
    "TOCSIN_EMAIL__SMTP__TIMEOUT": "4s",
    "TOCSIN_EMAIL__SMTP__CONNECTIONS": "100",
    "TOCSIN_SMS__TWILIO__TIMEOUT": "2s",
    "TOCSIN_PUSH__FCM__TIMEOUT": "2s",
}


def post_mails(api: httpx.Client, count: int) -> None:
    everybody = [{"id": f"u{number}", "email": f"u{number}@example.org"} for number in range(count)]
    posted(api, recipients=everybody, channels=["EMAIL"], notificationPriority="HIGH")


def statuses(postgres_url: str) -> dict[str, str]:
    return dict(rows_of(postgres_url, "select id::text, status from deliveries"))


def stopped_in_s(program: Program, number: int = signal.SIGTERM) -> float:
    """How long it takes to end, with exit status 0."""
    began = time.monotonic()
    program.signal(number)
    status = program.wait(HTTP_S + ACTORS_S + SLACK_S + 20)
    took_s = time.monotonic() - began
    assert status == 0, program.log.read_text()[-3000:]
    assert "Traceback" not in program.log.read_text()
    return took_s
