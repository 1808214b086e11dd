"""Ctrl-C while the program is still being read ends it without a word; imported before what takes its time to import.

Later each command has its own way: servers stop in order (stopping.py), others are left by KeyboardInterrupt.
"""

import signal
import sys
from pathlib import Path
from typing import Final

_NAMES: Final = {"tocsin", "app"}


def _is_program() -> bool:
    """Whether this process is the program itself, and not another one, such as a test, that imports it."""
    return Path(sys.argv[0]).stem in _NAMES and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def restore() -> None:
    """Makes Ctrl-C a KeyboardInterrupt again."""
    if _QUIET:
        signal.signal(signal.SIGINT, signal.default_int_handler)


_QUIET: Final = _is_program()
if _QUIET:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
