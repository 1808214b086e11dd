"""The bare client loop of a channel: what its client library does alone, at the same concurrency, with ready messages.

    bare.py <EMAIL|SMS|PUSH> <web port> <smtp port> <count> <concurrency>

Run as a process of its own by sends.py; who measures is the provider.
"""

import asyncio
import json
import sys
import threading
from collections.abc import Callable
from email.message import EmailMessage
from itertools import count as counting
from typing import Any, Final

TEXT: Final = "Your event has been approved. We look forward to seeing you there."


async def mail(smtp_port: int, count: int, concurrency: int) -> None:
    """aiosmtplib, a kept connection for each that sends."""
    import aiosmtplib

    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = "tocsin@example.org", "p1@example.org", "Approved"
    made.set_content(TEXT)
    text, places = made.as_bytes(), iter(range(count))

    async def send() -> None:
        client = aiosmtplib.SMTP(hostname="127.0.0.1", port=smtp_port, use_tls=False, start_tls=False)
        async with client:
            for _ in places:
                await client.sendmail("tocsin@example.org", "p1@example.org", text)

    await asyncio.gather(*(send() for _ in range(concurrency)))


def sms(base_url: str) -> Callable[[], Any]:
    """The twilio SDK."""
    from twilio.http.http_client import TwilioHttpClient
    from twilio.rest import Client

    http = TwilioHttpClient(timeout=20)
    http.session.trust_env = False
    client = Client("AC" + "0" * 32, "secret", http_client=http, environment={"none": "none"})
    client.api.base_url = base_url
    return lambda: client.messages.create(to="+14155550123", from_="+15005550006", body=TEXT)


def push(base_url: str) -> Callable[[], Any]:
    """firebase-admin, one call a message."""
    import firebase_admin
    from firebase_admin import messaging
    from google.oauth2.credentials import Credentials

    class SignedIn(firebase_admin.credentials.Base):  # type: ignore[misc]
        def get_credential(self) -> Any:
            return Credentials("bench")  # type: ignore[no-untyped-call]

    app = firebase_admin.initialize_app(SignedIn(), {"projectId": "bench"})
    service = messaging._get_messaging_service(app)
    service._fcm_url = f"{base_url}/v1/projects/bench/messages:send"
    service._client.session.trust_env = False
    shown = messaging.Notification(title="Approved", body=TEXT)

    def send() -> None:
        made = messaging.Message(notification=shown, data={"delivery": "0" * 36, "attempt": "1"})
        made.token = "token-of-a-device"
        messaging.send(made, app=app)

    return send


def in_threads(send: Callable[[], Any], count: int, concurrency: int) -> None:
    """Calls `send` so often, from so many threads."""
    places = counting()

    def work() -> None:
        while next(places) < count:
            send()

    threads = [threading.Thread(target=work) for _ in range(concurrency)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main(channel: str, web_port: str, smtp_port: str, count: str, concurrency: str) -> None:
    base_url, many, together = f"http://127.0.0.1:{web_port}", int(count), int(concurrency)
    if channel == "EMAIL":
        import uvloop

        uvloop.run(mail(int(smtp_port), many, together))
    else:
        in_threads(sms(base_url) if channel == "SMS" else push(base_url), many, together)
    print(json.dumps({"sent": many}))


if __name__ == "__main__":
    main(*sys.argv[1:])
