"""The admin key and the secret of user tokens, where nobody has set them: made once and kept in the data folder."""

import os
import secrets
import sys
import tempfile
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
    descriptor, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w") as file:
        file.write(fresh + "\n")
    try:
        # Whole or not at all: another process that starts now never reads half a secret.
        os.link(aside, path)
    except FileExistsError:
        return path.read_text().strip(), False
    finally:
        os.unlink(aside)
    return fresh, True
