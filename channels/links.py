"""The link of a message, `metadata.actionUrl`, as it may be put into a mail or a push."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit

_LONGEST: Final = 2_000
_SAFE: Final = "%/:=&?~#+!$,;'@()*[]-._"


def action_link(metadata: Mapping[str, Any], public_url: str | None) -> str | None:
    """An absolute http or https URL as it is, a path below `public_url`; None for anything else, such as `javascript:`
    or a host-relative `//elsewhere`."""
    given = metadata.get("actionUrl")
    if not isinstance(given, str) or len(given) > _LONGEST or any(ord(char) < 33 or ord(char) == 127 for char in given):
        return None
    if given.startswith("/") and not given.startswith(("//", "/\\")):
        return public_url + quote(given, safe=_SAFE) if public_url else None
    try:
        parts = urlsplit(given)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and "\\" not in given
    except ValueError:
        return None
    return quote(given, safe=_SAFE) if usable else None
