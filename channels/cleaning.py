"""What a provider says, as it may be kept and shown: no secret, no address, no token, at most 512 characters."""

import re
from collections.abc import Iterable
from typing import Final

from tocsin.domain.text import one_line

LIMIT: Final = 512
_HIDDEN: Final = "[hidden]"
_SHORTEST_PRIVATE: Final = 3
_SHORT: Final = 8

_EMAIL: Final = re.compile(r"[^\s<>()\[\],;:\"'@]{1,256}@[^\s<>()\[\],;:\"']{1,256}")
_NUMBER: Final = re.compile(r"\+?\d(?:[\s().-]?\d){6,}")
# Device tokens, keys and account ids are long runs without blanks; no word of any language is as long.
_TOKEN: Final = re.compile(r"[A-Za-z0-9_\-:.=/+%]{28,}")


def cleaned(text: object, private: Iterable[str] = ()) -> str | None:
    """`text` without what is in `private` and without what looks like an address, a number or a token; None for
    nothing said."""
    said = one_line(str(text))[: 8 * LIMIT] if text else ""
    if not said:
        return None
    lowered = said.lower() if said.isascii() else None
    for secret in sorted({secret for secret in private if len(secret) >= _SHORTEST_PRIVATE}, key=len, reverse=True):
        # Most say nothing of it; making its pattern takes as long as all else of a send.
        if lowered is not None and secret.isascii() and secret.lower() not in lowered:
            continue
        said = re.sub(_pattern(secret), _HIDDEN, said, flags=re.IGNORECASE)
    for pattern in (_EMAIL, _TOKEN, _NUMBER):
        said = pattern.sub(_HIDDEN, said)
    return said[:LIMIT] or None


def _pattern(secret: str) -> str:
    # The name of info@example.org is no reason to blot out half of "information".
    return rf"(?<!\w){re.escape(secret)}(?!\w)" if len(secret) < _SHORT else re.escape(secret)


def private_parts(address: str) -> tuple[str, ...]:
    """What of an address must not be shown: itself, and the name before its @."""
    return (address, address.rpartition("@")[0]) if "@" in address else (address, address.removeprefix("+"))
