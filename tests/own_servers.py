"""A Redis and a Postgres of a test's own, which it may stop, freeze, kill and start again."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psutil
import psycopg2

from tocsin.storage.embedded_postgres import EmbeddedPostgres
from tocsin.storage.embedded_redis import EmbeddedRedis


class Servers:
    """Both, started."""

    def __init__(self, folder: Path, *, postgres_in: Path | None = None) -> None:
        self.postgres = EmbeddedPostgres(postgres_in or folder)
        self.redis = EmbeddedRedis(folder)
        self.postgres_url = self.postgres.start()
        self.redis_url = self.redis.start()

    def stop(self) -> None:
        self.postgres.stop()
        self.redis.stop()

    @contextmanager
    def away(self, name: str) -> Iterator[None]:
        """Without "redis" or "postgres"; it is started again at the end."""
        server = self.redis if name == "redis" else self.postgres
        server.stop()
        try:
            yield
        finally:
            server.start()

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """With all its processes stopped where they are (SIGSTOP); they go on at the end."""
        pid = self.redis.pid if name == "redis" else self.postgres.pid
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                process.resume()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """With a Postgres that takes no writes."""
        self._operate("alter system set default_transaction_read_only = on", "select pg_reload_conf()")
        try:
            yield
        finally:
            self._operate("alter system reset default_transaction_read_only", "select pg_reload_conf()")

    @contextmanager
    def without_schema(self) -> Iterator[None]:
        """With a Postgres in which our tables are not to be found."""
        self._operate("alter schema public rename to elsewhere", "create schema public")
        try:
            yield
        finally:
            self._operate("drop schema public cascade", "alter schema elsewhere rename to public")

    def fault(self, name: str) -> AbstractContextManager[None]:
        """A fault such as "postgres frozen" or "postgres read-only"."""
        who, how = name.split(" ")
        faults: dict[str, Callable[[], AbstractContextManager[None]]] = {
            "away": lambda: self.away(who),
            "frozen": lambda: self.frozen(who),
            "read-only": self.read_only,
            "without-schema": self.without_schema,
        }
        return faults[how]()

    def _operate(self, *statements: str) -> None:
        connection = psycopg2.connect(self.postgres_url, options="-c default_transaction_read_only=off")
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        connection.close()
