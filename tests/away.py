"""One program whose servers fail, and what is asked of it meanwhile and afterwards."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx
import redis

from tests.own_servers import Servers
from tests.program import ADMIN_KEY, Program, client, posted
from tests.served import token_of
from tests.slow_mail import SlowMail
from tests.stored import rows_of

QUICK_S = 8.0
"""In this time everything is answered, on a machine that has much else to do; the first calls to a server that hangs
wait for their time-out, a little over three seconds, and the others do not."""
BACK_S = 30.0
CHANNELS = ["EMAIL", "IN_APP"]
SHORT = {"TOCSIN_RETRY__BASE": "200ms", "TOCSIN_BREAKER__REST": "1s", "TOCSIN_EMAIL__SMTP__TIMEOUT": "5s"}


class Away:
    """One program with servers that fail, and what is asked of it."""

    def __init__(self, servers: Servers, mail: SlowMail, program: Program) -> None:
        self.servers, self.mail, self.program = servers, mail, program
        self.api = client(program.url)
        self._people = 0

    def post(self) -> tuple[str, str]:
        """The notification of somebody new, and its durability."""
        self._people += 1
        person = {"id": f"u{self._people}", "email": f"u{self._people}@example.org"}
        told = posted(self.api, recipients=[person], channels=CHANNELS, notificationPriority="HIGH")
        return told["notifications"][0]["id"], told["durability"]

    def asked(self, path: str, user: str | None = None, method: str = "GET") -> httpx.Response:
        token = token_of(user) if user else ADMIN_KEY
        began = time.monotonic()
        answer = self.api.request(method, path, headers={"Authorization": f"Bearer {token}"})
        assert time.monotonic() - began < QUICK_S, path
        assert answer.status_code != 503 or int(answer.headers["Retry-After"]) > 0
        return answer

    def status(self, path: str, user: str | None = None, method: str = "GET") -> int:
        return self.asked(path, user, method).status_code

    def sent(self, note: str) -> int:
        """How often the mail of a notification went out, by the mail server's own count."""
        return sum(self.mail.taken[delivery] for delivery in self.mail.notes.get(note, ()))

    def knows_who_is_opted_out(self) -> bool:
        """Whether Redis does, so that people given inline can be planned for without Postgres."""
        with redis.Redis.from_url(self.servers.redis_url) as client:
            return bool(client.exists("tocsin:people_mirrored"))

    def all_are_sent(self, notes: Sequence[str]) -> bool:
        """Whether each was sent once."""
        counts = [self.sent(note) for note in notes]
        assert counts == [1] * len(notes), f"{counts}; the program says:\n{self.program.log.read_text()[-4000:]}"
        return True

    def stored(self) -> dict[str, str]:
        """The status of each mail by notification, as Postgres has it."""
        statement = "select notification_id::text, status from deliveries where channel = 'EMAIL'"
        return dict(rows_of(self.servers.postgres_url, statement))

    def all_is_well(self, *notes: str) -> bool:
        """Whether each was sent once and is stored so, and the program says that it is ready."""
        assert [self.sent(note) for note in notes] == [1] * len(notes)
        assert [self.stored().get(note) for note in notes] == ["SENT"] * len(notes)
        return bool(self.api.get("/ready").json()["status"] == "READY")

    @contextmanager
    def few_words(self, most: int = 8) -> Iterator[None]:
        """What is said beside INFO, and beside requests that were slow, is not a flood."""
        before = len(self.program.log.read_text())
        yield
        said = [line for line in self.program.log.read_text()[before:].splitlines() if " INFO " not in line]
        loud = [line for line in said if " took " not in line]
        assert len(loud) <= most, "\n".join(loud)
