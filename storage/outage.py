"""Whether a server is away: said once a minute, and answered at once while it lasts."""

import threading
import time
from typing import Final

from loguru import logger

from tocsin.domain.errors import PostgresAway

_QUIET_S: Final = 60.0
_TRY_AGAIN_S: Final = 0.5
_HANGS_S: Final = 1.0


class Outage:
    """What calls to Postgres found of it, for all threads. While it is away one call in half a second tries, and the
    others are answered at once: they would only pile up behind its time-outs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cause: PostgresAway | None = None
        self._next_try_s = 0.0
        self._said_s = -_QUIET_S
        self._said = False
        self._hangs = False

    @property
    def hangs(self) -> bool:
        """Whether it does not even refuse, so that a caller who tries it waits for nothing."""
        return self._hangs

    @property
    def lasts(self) -> bool:
        """Whether the last call failed."""
        return self._cause is not None

    def check(self) -> None:
        """Raises PostgresAway while Postgres is away and another call has just tried."""
        if self._cause is None:
            return
        with self._lock:
            now_s = time.monotonic()
            if self._cause is not None and now_s < self._next_try_s:
                raise PostgresAway(str(self._cause))
            self._next_try_s = now_s + _TRY_AGAIN_S

    def begins(self, cause: PostgresAway, took_s: float = 0.0) -> None:
        """Notes that a call failed, which took it `took_s`, and says so unless it was said within the last minute."""
        with self._lock:
            now_s = time.monotonic()
            self._cause = cause
            self._hangs = took_s >= _HANGS_S
            self._next_try_s = now_s + _TRY_AGAIN_S
            if now_s - self._said_s < _QUIET_S:
                return
            self._said_s = now_s
            self._said = True
        logger.warning("{}; it is tried again until it does", cause)

    def answers(self) -> None:
        """Notes that it answers again, whether or not it serves: the next call tries."""
        with self._lock:
            self._hangs = False
            self._next_try_s = 0.0

    def ends(self) -> None:
        """Notes that a call was answered; says so where it was said that it is away."""
        if self._cause is None:
            return
        with self._lock:
            self._cause, self._hangs = None, False
            said, self._said = self._said, False
        if said:
            logger.info("Postgres serves again")
