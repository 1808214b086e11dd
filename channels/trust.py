"""Whether an error is about a server's certificate, which the SDKs wrap in errors of their own."""

import ssl
from collections.abc import Iterator


def is_untrusted(error: BaseException | None) -> bool:
    """Whether the server's certificate could not be verified."""
    return any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what it was raised from or holds as its argument, as urllib3's and requests' do."""
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        cause = waiting.pop()
        if cause is None or cause in seen:
            continue
        seen.append(cause)
        yield cause
        held = [*cause.args, getattr(cause, "reason", None)]
        waiting += [cause.__cause__, cause.__context__, *(each for each in held if isinstance(each, BaseException))]
