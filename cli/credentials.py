"""The admin key and the secret of user tokens, where nobody has set them: made once and kept in the data folder."""

import os
import secrets
import sys
from pathlib import Path

from tocsin.domain.settings import Settings


def with_credentials(settings: Settings) -> Settings:
    """The settings with an admin key and, unless users' tokens are signed elsewhere, a secret for them. A key made now
    is printed, once."""
    auth = settings.auth
    given: dict[str, str] = {}
    if auth.admin_key is None:
        given["auth.admin_key"], made = _kept(settings.data.dir / "admin_key", "tk_admin_" + secrets.token_urlsafe(24))
        if made:
            print(f"\nadmin key, shown once: {given['auth.admin_key']}\n", file=sys.stderr, flush=True)  # noqa: T201
    if auth.jwt_secret is None and auth.jwt_public_key is None:
        given["auth.jwt_secret"], _ = _kept(settings.data.dir / "jwt_secret", secrets.token_urlsafe(48))
    return settings.with_values(given)


def _kept(path: Path, fresh: str) -> tuple[str, bool]:
    """What the file holds, or `fresh`, which it then holds; and whether it was made now. Readable by its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text().strip(), False
    with os.fdopen(descriptor, "w") as file:
        file.write(fresh + "\n")
    return fresh, True
