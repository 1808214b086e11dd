"""The doctor looks at secrets: are their files kept from others, and which are older than 90 days."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from tocsin.cli.findings import Finding, age_of_secret, warn
from tocsin.domain.setting_sources import KNOWN_NAMES, PREFIX, names_a_file

_OTHERS_READ: Final = stat.S_IROTH
_KEPT_BY_SERVE: Final = ("admin_key", "jwt_secret")
"""What `tocsin serve` makes itself and keeps in data.dir."""


def secret_files(environ: Mapping[str, str], data: Path) -> dict[str, Path]:
    """Where secrets are read from, by the name to show: <NAME>_FILE variables, and what lies in `data`."""
    found = {
        name: Path(path)
        for name, path in environ.items()
        if path and names_a_file(name) and (name.removesuffix("_FILE") in KNOWN_NAMES or name.startswith(PREFIX))
    }
    kept = {str(data / name): data / name for name in _KEPT_BY_SERVE}
    return found | {name: path for name, path in kept.items() if path.is_file()}


def check_secret_files(environ: Mapping[str, str], data: Path, now_ms: int) -> Iterator[Finding]:
    """Age and mode of each file. One that cannot be read was refused when the settings were read."""
    for name, path in sorted(secret_files(environ, data).items()):
        try:
            state = path.stat()
        except OSError as error:
            yield warn("secrets", f"{name} cannot be looked at ({type(error).__name__})", "Mend its path or its owner.")
            continue
        yield age_of_secret(name, int(state.st_mtime * 1000), now_ms)
        if state.st_mode & _OTHERS_READ:
            yield warn("secrets", f"the file of {name} can be read by everybody here", "chmod 600, or 640 for a group.")
