"""fan_out: how many people a second one process makes notifications of in Redis (fan_out and route, in-app and email),
for an event to everyone; beside two limits: the very commands that its scripts ran, written again by a bare Lua script
in calls of the same size, and sent one by one in pipelines. And for an event whose recipients are given inline.

What the scripts write is heard by MONITOR, in one round apart: so the limit is always of the same bytes, whatever a
script may come to write.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import redis
import uvloop

from tocsin.bench import crowd
from tocsin.bench.report import Figure, beside
from tocsin.bench.servers import Servers, folder, own_servers
from tocsin.bench.work import event_of, routed
from tocsin.domain.delivery import Channel
from tocsin.domain.event import Recipient
from tocsin.domain.plan import Step
from tocsin.domain.settings import Settings, load
from tocsin.storage.migrate import migrate
from tocsin.storage.postgres import Postgres
from tocsin.storage.store import Store

_ROUNDS: Final = 5
_PEOPLE: Final = 10_000
_STEPS: Final = (Step(Channel.IN_APP, 0), Step(Channel.EMAIL, 3_600_000))
_CHUNK: Final = 100
_WRITES: Final = frozenset(
    b"SET HSET HDEL HINCRBY LPUSH RPUSH LREM DEL PEXPIRE PERSIST ZADD ZREM XADD PUBLISH INCRBY INCR SADD SREM".split()
)
_HEARD: Final = re.compile(rb"^[\d.]+ \[\d+ (\S+)\] (.*)$")
_PART: Final = re.compile(rb'"((?:[^"\\]|\\.)*)"')
_ESCAPED: Final = re.compile(rb"\\(x[0-9a-f]{2}|.)")
_LETTERS: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b"}

_REPLAY: Final = """
local place = 1
while place <= #ARGV do
  local count = tonumber(ARGV[place])
  redis.call(unpack(ARGV, place + 1, place + count))
  place = place + count + 1
end
"""

Command = tuple[bytes, ...]


def measure(seconds: float, people: int | None = None) -> list[Figure]:
    """Takes about `seconds` on a machine that makes 10,000 a second."""
    many = people or max(_CHUNK * 10, min(_PEOPLE, int(seconds * 200)) // _CHUNK * _CHUNK)
    with folder() as where, own_servers(where / "data") as servers:
        migrate(servers.postgres_url)
        crowd.introduce(servers, many)
        given = {"postgres.url": servers.postgres_url, "redis.url": servers.redis_url, "data.dir": str(where)}
        stage = _Stage(servers, where, load({}).with_values(given), many)
        ours, lua, single, commands = stage.rounds(inline=False)
        named, named_lua, _, _ = stage.rounds(inline=True)
    notes = {"people": many, "commands_a_person": round(commands / many, 1)}
    return [
        beside("fan_out", "people/s", ours, lua, least=0.7, notes=notes),
        beside("fan_out_pipelined", "people/s", ours, single, least=2),
        beside("fan_out_inline", "people/s", named, named_lua, least=0.7),
    ]


@dataclass(frozen=True, slots=True)
class _Stage:
    """What each round is done on."""

    servers: Servers
    where: Path
    settings: Settings
    people: int

    def rounds(self, *, inline: bool) -> tuple[list[float], list[float], list[float], int]:
        """People a second of ours, of the bare script and of pipelines; and how many commands a round has."""
        client = redis.Redis.from_url(self.servers.other_redis_url)
        heard = self._heard(inline=inline)
        ready = [_as_arguments(call) for call in heard]
        ours, lua, single = [], [], []
        for number in range(_ROUNDS):
            ours.append(self.people / uvloop.run(self._round(number, inline=inline)))
            lua.append(self.people / _timed(client, lambda: _in_lua(client, ready)))
            single.append(self.people / _timed(client, lambda: _in_pipelines(client, heard)))
        client.close()
        return ours, lua, single, sum(len(call) for call in heard)

    async def _round(self, number: int, *, inline: bool) -> float:
        """Seconds that an event took; its inbox entries and the journal stay in Redis."""
        postgres = Postgres(self.settings.postgres)
        store = await Store.open(self.settings, postgres)
        names = [f"u{number}-{each}" for each in range(self.people)] if inline else []
        try:
            event = event_of(number, self.people if inline else None, _STEPS)
            await store.accept(event, [Recipient(id=name, email=f"{name}@example.org") for name in names], None)
            began_s = time.perf_counter()
            await routed(store, event.id)
            return time.perf_counter() - began_s
        finally:
            await store.close()
            await postgres.close()

    def _heard(self, *, inline: bool) -> list[list[Command]]:
        """What the scripts of one round wrote, a list for each call."""
        client = redis.Redis.from_url(self.servers.redis_url)
        with _monitor(self.servers, self.where) as log:
            uvloop.run(self._round(_ROUNDS, inline=inline))
            client.echo("the end")
            while b'"the end"' not in log.read_bytes()[-4_096:]:
                time.sleep(0.05)
        client.close()
        return [call for call in _calls(log.read_bytes().splitlines()) if call]


@contextmanager
def _monitor(servers: Servers, where: Path) -> Iterator[Path]:
    """Everything that Redis is told meanwhile, in a file: a client in Python could not keep pace."""
    import socket
    import threading

    log, ends = where / "heard", threading.Event()
    address = unquote(servers.redis_url.removeprefix("unix://"))
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    connection.sendall(b"MONITOR\r\n")
    connection.settimeout(0.1)

    def copy() -> None:
        with log.open("wb", buffering=0) as file:
            while not ends.is_set():
                try:
                    file.write(connection.recv(1 << 20))
                except TimeoutError:
                    continue

    copying = threading.Thread(target=copy)
    copying.start()
    try:
        yield log
    finally:
        ends.set()
        copying.join()
        connection.close()


def _calls(lines: Sequence[bytes]) -> Iterator[list[Command]]:
    """The writes of each script's run, whose own commands follow its call."""
    writes: list[Command] = []
    for line in lines:
        found = _HEARD.match(line.removeprefix(b"+"))
        if found is None:
            continue
        if found[1] != b"lua":
            yield writes
            writes = []
            continue
        command = tuple(_plain(part) for part in _PART.findall(found[2]))
        if command[0].upper() == b"XADD":
            command = (*command[:2], b"*", *command[3:])  # the journal's ids are of their own time
        if command[0].upper() in _WRITES:
            writes.append(command)
    yield writes


def _plain(text: bytes) -> bytes:
    def one(found: re.Match[bytes]) -> bytes:
        letter = found[1]
        return bytes([int(letter[1:], 16)]) if len(letter) == 3 else _LETTERS.get(letter, letter)

    return _ESCAPED.sub(one, text)


def _timed(client: Any, work: Callable[[], None]) -> float:
    client.flushdb()
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s


def _in_lua(client: Any, calls: Sequence[Sequence[bytes]]) -> None:
    """One call of a script for each that there was; its arguments are ready."""
    script = client.register_script(_REPLAY)
    for arguments in calls:
        script(args=arguments)


def _in_pipelines(client: Any, calls: Sequence[Sequence[Command]]) -> None:
    """A pipeline for each call, its commands one by one."""
    for call in calls:
        pipeline = client.pipeline(transaction=False)
        for command in call:
            pipeline.execute_command(*command)
        pipeline.execute()


def _as_arguments(call: Sequence[Command]) -> list[bytes]:
    return [part for command in call for part in (b"%d" % len(command), *command)]
