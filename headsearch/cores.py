"""How many processor cores this process may use: all that it can run on or, where several trainings divide them, its share."""

from __future__ import annotations

import os

_SHARE = "HEADSEARCH_CORES"


def cores() -> int:
    """Cores for the threads of this process and for the processes that it starts."""
    share = os.environ.get(_SHARE, "")
    if share.isdecimal() and int(share) > 0:
        return int(share)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def take_share(number: int) -> None:
    """From now on this process, and those that it starts, use so many cores."""
    os.environ[_SHARE] = str(number)
