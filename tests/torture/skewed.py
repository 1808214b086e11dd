"""The program with a clock that is wrong: `python tests/torture/skewed.py <seconds> <arguments…>`."""

import sys
import time


def skew(seconds: float) -> None:
    """Shifts what Python's clocks say of the day; monotonic ones, by which waits are counted, go on."""
    right, right_ns = time.time, time.time_ns
    time.time = lambda: right() + seconds
    time.time_ns = lambda: right_ns() + int(seconds * 1e9)


if __name__ == "__main__":
    skew(float(sys.argv[1]))
    sys.argv = ["tocsin", *sys.argv[2:]]
    from tocsin.app import main

    main()
