"""peers: items that do nothing, a second. Ours in batches, as one event to many people is worked on, and with every
item an event of its own; beside stock Dramatiq, Celery, RQ, Huey and taskiq with a message an item, on the same Redis.

One driver measures all: the items are in Redis before the workers start, and from the moment at which the first is gone
it looks how many are left, until none is. All run in as many processes as this machine has cores, with eight threads
each where they have threads.
"""

import asyncio
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis

from tocsin.bench import crowd
from tocsin.bench.report import Figure, beside, shown
from tocsin.bench.servers import Servers, folder, own_servers, running, tocsin
from tocsin.bench.work import event_of
from tocsin.domain.delivery import Channel
from tocsin.domain.event import Recipient
from tocsin.domain.plan import Step
from tocsin.domain.settings import load
from tocsin.storage.migrate import migrate
from tocsin.storage.postgres import Postgres
from tocsin.storage.store import Store

_FOLDER: Final = Path(__file__).parent / "peers"
_LOCK: Final = _FOLDER / "requirements.lock"
_ENVIRONMENT: Final = _FOLDER / ".venv"
_PYTHON: Final = _ENVIRONMENT / "bin" / "python"
_ROUNDS: Final = 3
_LIMIT_S: Final = 180.0
_LOOK_S: Final = 0.01
_STEPS: Final = (Step(Channel.IN_APP, 0),)
_TOGETHER: Final = 100
_THREADS: Final = "8"
_CORES: Final = len(os.sched_getaffinity(0))

Left = Callable[[Any], int]


@dataclass(frozen=True, slots=True)
class Peer:
    """How a peer's workers are started, how many items wait for them, and about how many they do a second."""

    name: str
    command: Sequence[str]
    left: Left
    a_second: int


_PEERS: Final = (
    Peer(
        "dramatiq",
        ("-m", "dramatiq", "dramatiq_items", "--processes", str(_CORES), "--threads", _THREADS),
        lambda client: client.hlen("dramatiq:default.msgs"),
        2_000,
    ),
    Peer(
        "celery",
        ("-m", "celery", "-A", "celery_items", "worker", "--concurrency", str(_CORES), "--loglevel", "ERROR"),
        lambda client: client.llen("celery") + client.hlen("unacked"),
        800,
    ),
    Peer(
        "rq",
        ("-m", "rq.cli", "worker-pool", "--num-workers", str(_CORES), "--logging-level", "ERROR"),
        lambda client: client.llen("rq:queue:default"),
        150,
    ),
    Peer(
        "huey",
        ("-m", "huey.bin.huey_consumer", "huey_items.huey", "--workers", _THREADS, "--quiet"),
        lambda client: client.llen("huey.redis.items"),
        2_000,
    ),
    Peer(
        "taskiq",
        ("-m", "taskiq", "worker", "taskiq_items:broker", "--workers", str(_CORES), "--log-level", "ERROR"),
        lambda client: client.llen("taskiq"),
        1_500,
    ),
)


def measure(seconds: float, items: int | None = None) -> list[Figure]:
    """Takes about `seconds`, and some more to start workers and to fill queues; or so many `items` a round."""
    each_s = max(0.5, seconds / 20)
    _make_environment()
    with folder() as where, own_servers(where / "data") as servers:
        migrate(servers.postgres_url)
        bench = _Bench(where, servers)
        crowd.introduce(servers, many := items or int(each_s * 20_000))
        batches = [bench.ours(many, together=True) for _ in range(_ROUNDS)]
        single = [bench.ours(items or int(each_s * 800), together=False) for _ in range(_ROUNDS)]
        theirs = {
            peer.name: [bench.theirs(peer, items or int(each_s * peer.a_second)) for _ in range(_ROUNDS)]
            for peer in _PEERS
        }
    best = max(theirs, key=lambda name: statistics.median(theirs[name]))
    return [
        beside("peers_batches", "items/s", batches, theirs[best], least=10, notes={"beside": best}),
        beside("peers_single", "items/s", single, theirs["dramatiq"], least=0.5, notes={"beside": "dramatiq"}),
        *(shown(f"peers_{name}", "items/s", rounds, version=_version(name)) for name, rounds in theirs.items()),
    ]


class _Bench:
    """The driver, on one Redis: ours in one database of it, each peer in turn in another."""

    def __init__(self, where: Path, servers: Servers) -> None:
        self._where = where
        self._servers = servers
        self._client: Any = redis.Redis.from_url(servers.redis_url)
        self._other: Any = redis.Redis.from_url(servers.other_redis_url)

    def ours(self, items: int, *, together: bool) -> float:
        """Items a second: all of one event to everyone, or each an event."""
        others = int(self._client.zcard("tocsin:due"))  # the end of an earlier event may be to come yet
        events = asyncio.run(_post(self._where, self._servers, items, together=together))

        def left() -> int:
            if together:
                return items - int(self._client.hget(f"tocsin:event:{events[0]}", "routed") or 0) * _TOGETHER
            return int(self._client.zcard("tocsin:due")) - others

        command = tocsin("actors", "--queues", "fan_out,route", "--threads", _THREADS)
        return self._rate([command] * _CORES, self._servers.environ(), left, items)

    def theirs(self, peer: Peer, items: int) -> float:
        """Items a second of a peer."""
        self._other.flushdb()
        url = self._servers.other_redis_url
        environ = {"REDIS_URL": url, "RQ_REDIS_URL": url, "PYTHONPATH": str(_FOLDER)}
        put = [str(_PYTHON), str(_FOLDER / "items.py"), peer.name, str(items)]
        subprocess.run(put, env=os.environ | environ, cwd=self._where, check=True, timeout=_LIMIT_S)
        return self._rate([peer.command], environ, lambda: peer.left(self._other), items, str(_PYTHON))

    def _rate(
        self,
        commands: Sequence[Sequence[str]],
        environ: Mapping[str, str],
        left: Callable[[], int],
        items: int,
        python: str = sys.executable,
    ) -> float:
        if (there := left()) < items:
            raise RuntimeError(f"{there} of {items} items are in Redis")
        with ExitStack() as stack:
            programs = [stack.enter_context(running(command, self._where, environ, python)) for command in commands]
            first_s, first, end_s = 0.0, 0, time.monotonic() + _LIMIT_S
            while (now := left()) > 0:
                if not first_s and now <= items * 2 // 3:
                    first_s, first = time.monotonic(), now
                if time.monotonic() > end_s or programs[0].process.poll() is not None:
                    raise RuntimeError(f"{now} of {items} items are left:\n{programs[0].log.read_text()[-2000:]}")
                time.sleep(_LOOK_S)
            return first / max(_LOOK_S, time.monotonic() - first_s)


async def _post(where: Path, servers: Servers, items: int, *, together: bool) -> list[str]:
    """Events that are stored and wait in Redis for their fan-out, with the calls to it."""
    given = {"postgres.url": servers.postgres_url, "redis.url": servers.redis_url, "data.dir": str(where)}
    settings = load({}).with_values(given)
    postgres = Postgres(settings.postgres)
    store = await Store.open(settings, postgres)
    people = [Recipient(id=f"u{number}", email=f"u{number}@example.org") for number in range(items)]
    events = [event_of(0, None, _STEPS)] if together else [event_of(number, 1, _STEPS) for number in range(items)]
    named: list[list[Recipient]] = [[]] if together else [[person] for person in people]
    try:
        for first in range(0, len(events), _TOGETHER):
            pairs = list(zip(events, named, strict=True))[first : first + _TOGETHER]
            await asyncio.gather(*(store.accept(event, some, None) for event, some in pairs))
    finally:
        await store.close()
        await postgres.close()
    return [str(event.id) for event in events]


def _make_environment() -> None:
    """Installs the peers as they are locked, unless that was done."""
    mark, wanted = _ENVIRONMENT / "lock", hashlib.sha256(_LOCK.read_bytes()).hexdigest()
    if mark.exists() and mark.read_text() == wanted:
        return
    shutil.rmtree(_ENVIRONMENT, ignore_errors=True)
    beside = (
        Path(sys.executable).parent / "uv"
    )  # as `make` installs; without it pip does the same in ten times the time
    if beside.exists():
        subprocess.run([str(beside), "venv", "--quiet", "--python", sys.executable, str(_ENVIRONMENT)], check=True)
        install = [str(beside), "pip", "install", "--quiet", "--python", str(_PYTHON)]
    else:
        subprocess.run([sys.executable, "-m", "venv", str(_ENVIRONMENT)], check=True)
        install = [str(_PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--require-hashes", "-r", str(_LOCK)], check=True)
    mark.write_text(wanted)


def _version(name: str) -> str:
    line = next(line for line in _LOCK.read_text().splitlines() if line.startswith(f"{name}=="))
    return line.split("==")[1].split()[0]
