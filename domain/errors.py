"""The errors that one floor raises for another to answer. Their messages hold no secret and no address.

TocsinError
├── SettingError          a setting is unknown or wrong: names it and the mend
├── InvalidInput          a caller's value is wrong: names the field and the mend
├── Unavailable           something Tocsin stands on is away
│   ├── RedisAway
│   │   └── RedisLost     it answers, but was emptied or is an older one, and is being rebuilt
│   ├── PostgresAway      also read-only, or without its schema
│   ├── ProviderAway      a provider that was asked what it knows
│   └── Overloaded        a limit of memory or disk is reached
│       └── TooManyFilters  so many filters are being stopped that there is no room for another
├── NotFound              it does not exist, or is not the asker's
└── Conflict              it is not in a state for that
    ├── KeyMismatch       an Idempotency-Key was used for another request
    ├── StillRunning      the first request with an Idempotency-Key has not been answered
    └── KeyBusy           another event with the same key is being taken
"""


class TocsinError(Exception):
    """The root of what Tocsin raises on purpose."""


class SettingError(TocsinError):
    """A setting is unknown or wrong."""


class InvalidInput(TocsinError):
    """A caller's value is wrong. `field` is its path in the request, `mend` what to do."""

    def __init__(self, field: str, detail: str, *, code: str = "invalid_value") -> None:
        super().__init__(f"{field}: {detail}")
        self.field = field
        self.detail = detail
        self.code = code


class Unavailable(TocsinError):
    """Something Tocsin stands on is away; try again after `retry_after_s` seconds."""

    retry_after_s = 5


class RedisAway(Unavailable):
    """Redis does not answer."""


class RedisLost(RedisAway):
    """Redis was emptied, or is an older one than was known; what is in motion is being rebuilt."""


class PostgresAway(Unavailable):
    """Postgres does not answer, cannot write, or lacks the schema."""


class ProviderAway(Unavailable):
    """A provider that was asked what it knows does not answer, or says no."""


class Overloaded(Unavailable):
    """A limit of memory or disk is reached; nothing new is taken for now."""

    retry_after_s = 30


class TooManyFilters(Overloaded):
    """So many filters are being stopped that there is no room for another."""


class NotFound(TocsinError):
    """It does not exist, or is not the asker's: the two are answered alike."""


class Conflict(TocsinError):
    """It is not in a state for that."""


class KeyMismatch(Conflict):
    """An Idempotency-Key was used for another request."""


class StillRunning(Conflict):
    """The first request with an Idempotency-Key has not been answered yet."""


class KeyBusy(Conflict):
    """Another event with the same key is being taken."""
