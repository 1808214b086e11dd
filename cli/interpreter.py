"""How Python itself runs in a process.

Its garbage collector looks seldom, for requests and sends leave it nothing. What they make is let go of as they end,
and only what is caught in a circle is left: some tracebacks of a server that went away. By its own measure the
collector looks through all that is under way ten times in a hundred requests, which was a tenth of the processor time
of each, and now and then through everything, when all of them wait for 15 ms.
"""

import gc
import sys
from typing import Final

_YOUNG: Final = 20_000
"""Objects more than there were, before it looks at those alone: a few megabytes, and milliseconds."""
_MIDDLE, _OLD = 10, 20
_TURN_S: Final = 0.001
"""How long a thread that has something to do waits for another to give way. By default it is five times that: twice a
commit, and requests wait for both; and once an answer of Redis while the persister's thread is at work."""


def take_short_turns() -> None:
    """Lets no thread wait long for another: requests wait for those that heard from Postgres, and all that actors do
    waits for the one that stores."""
    sys.setswitchinterval(_TURN_S)


def collect_seldom() -> None:
    """To be called when the program has been read: what is there now stays, and is never looked through."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
