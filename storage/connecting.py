"""How a connection to Postgres is opened, looked at and broken off."""

import os
import select
import socket
import time
from typing import Any, Final

import psycopg2
from psycopg2.extensions import POLL_OK, POLL_READ, TRANSACTION_STATUS_IDLE

_LOCK_TIMEOUT_MS: Final = 10_000
_IDLE_IN_TRANSACTION_MS: Final = 30_000
# A peer whose machine died says nothing; TCP gives it up after about eleven seconds.
_KEEPALIVE: Final = {"keepalives": 1, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
_UNANSWERED_MS: Final = 11_000


def connect(url: str, *, connect_timeout_ms: int, statement_timeout_ms: int, waits: bool = True) -> Any:
    """A connection in autocommit mode with its time-outs set; unless it `waits`, it is for its user to poll, from the
    first. Raises psycopg2.OperationalError."""
    limits = {
        "statement_timeout": statement_timeout_ms,
        "lock_timeout": min(_LOCK_TIMEOUT_MS, statement_timeout_ms),
        "idle_in_transaction_session_timeout": _IDLE_IN_TRANSACTION_MS,
    }
    connection = psycopg2.connect(
        url,
        # libpq counts whole seconds and takes less than two for two.
        connect_timeout=max(2, -(-connect_timeout_ms // 1000)),
        # What is short is not worth compiling, which Postgres may think of a batch of outcomes.
        options=" ".join(f"-c {name}={limit}" for name, limit in limits.items()) + " -c jit=off",
        application_name="tocsin",
        client_encoding="UTF8",
        tcp_user_timeout=_UNANSWERED_MS,
        async_=not waits,
        **_KEEPALIVE,
    )
    if waits:
        connection.autocommit = True
    return connection


def settle(connection: Any, limit_ms: int) -> None:
    """Waits until a connection that does not wait by itself is ready. Raises psycopg2.Error."""
    end_s = time.monotonic() + limit_ms / 1000
    while (state := connection.poll()) != POLL_OK:
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN if state == POLL_READ else select.POLLOUT)
        if not poll.poll(max(0.0, end_s - time.monotonic()) * 1000):
            raise psycopg2.OperationalError("Postgres did not answer in time")


def is_alive(connection: Any) -> bool:
    """Whether an idle connection still is one: the server says something to an idle client only as it goes away."""
    if connection.closed:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
    return not poll.poll(0)


def is_clean(connection: Any) -> bool:
    """Whether a connection can be used again: open, and in no transaction."""
    return not connection.closed and bool(connection.get_transaction_status() == TRANSACTION_STATUS_IDLE)


def break_off(connection: Any) -> None:
    """Ends what another thread waits for on `connection`, by shutting its socket down under it."""
    with socket.socket(fileno=os.dup(connection.fileno())) as shared:
        shared.shutdown(socket.SHUT_RDWR)
