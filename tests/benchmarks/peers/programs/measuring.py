"""How each program measures; it runs in any environment, so it needs nothing but Python."""

import json
import sys
import time


def no_op(x):
    """Do next to nothing."""
    return x + 1


def measure(work, count, action, expected):
    """Carry out an action, check what it gives, and print its seconds as a line of JSON."""
    start = time.perf_counter()
    found = action()
    took = time.perf_counter() - start
    if found != expected:
        raise AssertionError(f"{work} gave {str(found)[:200]}")
    print(json.dumps({"work": work, "count": count, "seconds": took}), flush=True)


def counts():
    """Return how many of each work: map, loop of submits, chain."""
    return [int(text) for text in sys.argv[1:4]]
