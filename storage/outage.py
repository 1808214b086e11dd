"""Whether a server is away: said once a minute, and answered at once while it lasts."""

import threading
import time
from typing import Final

from loguru import logger

from tocsin.domain.errors import PostgresAway

_QUIET_S: Final = 60.0
_TRY_AGAIN_S: Final = 0.5


class Outage:
    """What calls to Postgres found of it, for all threads. While it is away one call in half a second tries, and the
    others are answered at once: they would only pile up behind its time-outs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cause: PostgresAway | None = None
        self._next_try_s = 0.0
        self._said_s = -_QUIET_S
        self._said = False

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

    def begins(self, cause: PostgresAway) -> None:
        """Notes that a call failed, and says so unless it was said within the last minute."""
        with self._lock:
            now_s = time.monotonic()
            self._cause = cause
            self._next_try_s = now_s + _TRY_AGAIN_S
            if now_s - self._said_s < _QUIET_S:
                return
            self._said_s = now_s
            self._said = True
        logger.warning("{}; it is tried again until it does", cause)

    def ends(self) -> None:
        """Notes that a call was answered; says so where it was said that it is away."""
        if self._cause is None:
            return
        with self._lock:
            self._cause = None
            said, self._said = self._said, False
        if said:
            logger.info("Postgres serves again")
