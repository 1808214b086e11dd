"""send_email, send_sms, send_push: how many a second one process of actors hands to a provider, beside the bare client
loop at the same concurrency against the same provider server, which has a process of its own and is the one who counts.

Once with a provider that answers at once, where processor time is the limit, and once with one that takes 25 ms, as
one across a network does.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tocsin.bench import crowd
from tocsin.bench.api import Api
from tocsin.bench.bare import TEXT
from tocsin.bench.report import Figure, beside
from tocsin.bench.servers import (
    ADMIN_KEY,
    PORT,
    Program,
    Servers,
    folder,
    own_servers,
    processor_s,
    ready_actors,
    running,
    tocsin,
)

_HERE: Final = Path(__file__).parent
_CONCURRENCY: Final = 8
_ROUNDS: Final = 3
_FAR_MS: Final = 25
_A_SECOND: Final = {"EMAIL": 800, "SMS": 250, "PUSH": 250}
"""About how many go out: what decides how many make a round of some seconds."""
_LIMIT_S: Final = 120.0


class Provider:
    """The provider's process, asked."""

    def __init__(self, program: Program) -> None:
        self.port = program.port
        self.pid = program.pid
        self._api = Api(program.port, "none")
        self.smtp_port: int = self._api.ask("GET", "/counts")["smtp_port"]

    def reset(self, delay_ms: float = 0) -> None:
        self._api.ask("GET", f"/reset?delay_ms={delay_ms}")

    def count(self, channel: str) -> int:
        """How many came since the reset."""
        return int(self._api.ask("GET", "/counts")[channel]["count"])

    def rate(self, channel: str, *, skipped: int = 0) -> float:
        """How many a second, from the first to the last one; without the first so many twentieths of them."""
        told = self._api.ask("GET", "/counts")[channel]
        spent_s = told["at_s"][-1] - told["at_s"][skipped]
        return float((told["count"] - 1) * (20 - skipped) / 20 / max(1e-6, spent_s))

    def settings(self, concurrency: int = _CONCURRENCY) -> dict[str, str]:
        """What the program has to be told to send here."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        url, many = f"http://127.0.0.1:{self.port}", str(concurrency)
        return {
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": str(self.smtp_port),
            "SENDER_EMAIL": "tocsin@example.org",
            "TOCSIN_EMAIL__SMTP__SECURITY": "none",
            "TOCSIN_EMAIL__SMTP__CONNECTIONS": many,
            "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
            "TWILIO_AUTH_TOKEN": "secret",
            "TWILIO_PHONE_NUMBER": "+15005550006",
            "TOCSIN_SMS__TWILIO__BASE_URL": url,
            "TOCSIN_SMS__TWILIO__CONCURRENCY": many,
            "FIREBASE_PROJECT_ID": "bench",
            "FIREBASE_PRIVATE_KEY": pem,
            "FIREBASE_CLIENT_EMAIL": "bench@bench.iam.gserviceaccount.test",
            "TOCSIN_PUSH__FCM__BASE_URL": url,
            "TOCSIN_PUSH__FCM__CONCURRENCY": many,
        }


@contextmanager
def provider_running(where: Path) -> Iterator[Provider]:
    """A provider for as long as this lasts."""
    with running([str(_HERE / "provider.py"), PORT], where, {}) as program:
        program.ready("/counts")
        yield Provider(program)


@dataclass(frozen=True, slots=True)
class Site:
    """Everything that a send needs, but who sends."""

    where: Path
    servers: Servers
    provider: Provider
    sender: Api
    waiting: crowd.Waiting
    environ: Mapping[str, str]

    def ready(self, channel: str, people: int) -> None:
        """So many deliveries wait in a channel, and everything about them is stored."""
        crowd.tell(
            self.sender, people, title="Approved", message=TEXT, channels=[channel], deliveryStrategy="BROADCAST"
        )
        crowd.until(lambda: self.waiting.in_channel(channel) == people and not self.waiting.facts(), _LIMIT_S)


def measure(channel: str, seconds: float, people: int | None = None) -> list[Figure]:
    """Takes about `seconds` and what it takes to make the deliveries ready; or sends to so many `people` a round."""
    count = people or max(50, int(seconds / (2 * _ROUNDS + 4) * _A_SECOND[channel]))
    far_count = max(_CONCURRENCY * 4, min(count, int(seconds / 20 * _CONCURRENCY * 1000 / _FAR_MS)))
    name = f"send_{channel.lower()}"
    with _site(max(count, far_count)) as site:
        near = [(_ours(site, channel, count), _bare(site, channel, count)) for _ in range(_ROUNDS)]
        far = [
            (_ours(site, channel, far_count, _FAR_MS)[0], _bare(site, channel, far_count, _FAR_MS))
            for _ in range(_ROUNDS)
        ]
    ours, used = zip(*(each for each, _ in near), strict=True)
    notes = {
        "at_once": _CONCURRENCY,
        "us_of_a_core_a_send": round(sorted(used)[len(used) // 2] * 1e6),
        "a_round": count,
    }
    far_ours, far_bare = zip(*far, strict=True)
    return [
        beside(name, "sends/s", ours, [each for _, each in near], least=0.8, notes=notes),
        beside(f"{name}_far", "sends/s", far_ours, far_bare, least=0.8, notes={"answers_after_ms": _FAR_MS}),
    ]


@contextmanager
def _site(people: int) -> Iterator[Site]:
    """With processes that accept, plan and store, but do not send."""
    with ExitStack() as stack:
        where = stack.enter_context(folder())
        servers = stack.enter_context(own_servers(where / "data"))
        provider = stack.enter_context(provider_running(where))
        environ = servers.environ() | provider.settings()
        http = stack.enter_context(running(tocsin("http"), where, environ))
        http.ready()
        crowd.introduce(servers, people, devices=True)
        stack.enter_context(ready_actors(where, environ, ("fan_out", "route", "persist")))
        _, waiting = stack.enter_context(crowd.looking(servers))
        yield Site(where, servers, provider, Api(http.port, ADMIN_KEY), waiting, environ)


def _ours(site: Site, channel: str, count: int, delay_ms: float = 0) -> tuple[float, float]:
    """Sends a second, as the provider saw them; and seconds of a core that each cost the process that sends."""
    site.ready(channel, count)
    site.provider.reset(delay_ms)
    with ready_actors(site.where, site.environ, (f"send_{channel.lower()}",)) as program:
        crowd.until(lambda: site.provider.count(channel) >= 1, _LIMIT_S, 0.005)
        before_s = processor_s(program.pid)
        crowd.until(lambda: site.provider.count(channel) >= count, _LIMIT_S)
        used_s = (processor_s(program.pid) - before_s) / count
        crowd.until(lambda: not site.waiting.in_channel(channel) and not site.waiting.facts(), _LIMIT_S)
    return site.provider.rate(channel), used_s


def _bare(site: Site, channel: str, count: int, delay_ms: float = 0) -> float:
    return bare_rate(site.provider, channel, count, _CONCURRENCY, delay_ms)


def bare_rate(provider: Provider, channel: str, count: int, concurrency: int, delay_ms: float = 0) -> float:
    """Sends a second of the client library alone."""
    provider.reset(delay_ms)
    given: list[Any] = [channel, provider.port, provider.smtp_port, count, concurrency]
    command = [sys.executable, str(_HERE / "bare.py"), *map(str, given)]
    subprocess.run(command, check=True, capture_output=True, timeout=_LIMIT_S)
    return provider.rate(channel)
