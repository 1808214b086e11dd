"""What many tests stand on: a Redis and a Postgres that the suite starts itself, and settings.

One of each is started a session, on a Unix socket in a temporary folder, so that tests need no service and no port. A
test gets an empty Redis and a database of its own, copied from one that was migrated once.
"""

import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import fakeredis
import hypothesis
import psycopg2
import pytest
import redis

from tests.certificates import server_context
from tests.missing import missing
from tests.program import Program, free_port
from tests.slow_mail import SlowMail
from tests.workbench import Bench
from tocsin.channels.sandbox.sandbox import Sandbox
from tocsin.domain.errors import SettingError
from tocsin.domain.settings import Settings, load
from tocsin.storage.embedded_postgres import EmbeddedPostgres
from tocsin.storage.embedded_redis import EmbeddedRedis
from tocsin.storage.migrate import migrate
from tocsin.storage.redis import connect

_TEMPLATE = "template_of_tests"
_LONGEST = (
    "torture/test_torture.py",
    "test_image.py",
    "test_http_description.py",
    "test_page.py",
    "test_outages.py",
    "test_cli_commands.py",
    "test_cli_demo.py",
    "test_story.py",
    "test_stopping_servers.py",
    "test_stopping.py",
    "test_scaling.py",
)
"""Files that would run on alone if they were begun at the end; the longest come first."""

# How long an example takes says more of the machine than of what it tries.
hypothesis.settings.register_profile("tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("tests")
_numbers = itertools.count(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several processes share the files, puts the longest first."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _place_of(item.path))


@pytest.fixture(scope="session", autouse=True)
def outer_environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which the tests were started. In their own one authority is trusted: to read those of the
    machine takes each HTTP client 20 ms, and nothing here is vouched for by one."""
    before = dict(os.environ)
    _, authority = server_context(tmp_path_factory.mktemp("authority"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(authority))
        yield before


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the session's Redis; tests take `redis_url`."""
    server = EmbeddedRedis(tmp_path_factory.mktemp("redis"))
    try:
        yield server.start()
    except SettingError as error:
        missing(str(error))
    finally:
        server.stop()


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """A Redis with nothing in it."""
    client = redis.Redis.from_url(redis_server)
    client.flushall()
    client.close()
    return redis_server


@pytest.fixture(params=["fakeredis", pytest.param("redis", marks=pytest.mark.servers)])
async def either_redis(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """A client of an empty Redis: of one that is made of Python, and of a real one."""
    if request.param == "fakeredis":
        client: Any = fakeredis.FakeAsyncRedis(decode_responses=True)
    else:
        client = connect(request.getfixturevalue("redis_url"))
    yield client
    await client.aclose()


@pytest.fixture
def bench(either_redis: Any) -> Bench:
    """The Redis side of storage, on both."""
    return Bench(either_redis)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the session's Postgres, in which the template is migrated; tests take `postgres_url`."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"))
    try:
        address = server.start()
        # Tests do not outlive a crash of the machine, so they need not wait for its disk.
        _execute(address, "ALTER SYSTEM SET fsync = off")
        _execute(address, "SELECT pg_reload_conf()")
        _execute(address, f"CREATE DATABASE {_TEMPLATE}")
        migrate(_database(address, _TEMPLATE))
        yield address
    except SettingError as error:
        missing(str(error))
    finally:
        server.stop()


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """A database of the test's own, migrated and empty."""
    name = f"test_{next(_numbers)}"
    _execute(postgres_server, f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE} STRATEGY FILE_COPY")
    yield _database(postgres_server, name)
    _execute(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Settings]:
    """Makes settings: the defaults, changed by path as they would be written: `settings({"retry.base": "1s"})`."""

    def make(changes: Mapping[str, Any] | None = None) -> Settings:
        return load({}).with_values({"data.dir": str(tmp_path / "data"), **(changes or {})})

    return make


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Servers of all providers, which keep what they receive."""
    made = Sandbox()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def mail() -> Iterator[SlowMail]:
    """A mail server that counts, and takes as long as it is told to."""
    with SlowMail() as server:
        yield server


@pytest.fixture(scope="session")
def sandbox_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """`tocsin serve --sandbox` with a Postgres and a Redis of its own, as `make run` starts it; one for the session."""
    folder = tmp_path_factory.mktemp("sandbox")
    environ = {"TOCSIN_DATA__DIR": str(folder / "data"), "TOCSIN_HTTP__PORT": str(free_port())}
    program = Program(folder, "serve", "--sandbox", environ=environ, afresh=True)
    try:
        program.start().ready(60)
        yield program
        assert program.stop() == 0
    finally:
        if program.process and program.process.poll() is None:
            program.kill()


def _place_of(file: Path) -> int:
    places = (place for place, name in enumerate(_LONGEST) if file.match(name))
    return next(places, len(_LONGEST))


def _database(address: str, name: str) -> str:
    return address.replace("@/tocsin?", f"@/{name}?")


def _execute(address: str, statement: str) -> None:
    connection = psycopg2.connect(address)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()
