"""Repeats what a storage could not do while its database was away, for a bounded time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

from headsearch.runs.failures import StorageAway, in_one_line, telling_when_away

Result = TypeVar("Result")

FIRST_WAIT, LONGEST_WAIT = 0.25, 5.0
"""Seconds between two attempts, doubled from the first to the longest."""


class Patience:
    """How long a database may be away, and who is told that it is."""

    def __init__(self, seconds: float = 60.0, note: Callable[[str], None] = lambda text: None) -> None:
        self._seconds = seconds
        self._note = note

    def __call__(self, write: Callable[[], Result], again: Callable[[], Result] | None = None) -> Result:
        """Write to the study; while the database is away, wait and do it again.

        A write that was lost on the way and one whose answer was lost look the same. `again` must do right in both cases; where it is not
        given, `write` does.

        Raises:
            RunError: the database stayed away, or the storage failed in another way.
        """
        with in_one_line(
            "the study cannot be written", "; everything finished is safe, continue with --resume"
        ):
            return self._attempt(write, again or write)

    def _attempt(self, write: Callable[[], Result], again: Callable[[], Result]) -> Result:
        # The second time at once and in silence: a connection that was idle for long may have been dropped, and nothing else.
        wait, until, told = 0.0, math.inf, False
        while True:
            try:
                with telling_when_away():
                    result = write()
            except StorageAway as error:
                until = min(until, time.monotonic() + self._seconds)
                left = until - time.monotonic()
                if left <= 0:
                    raise
                if wait > 0 and not told:
                    self._note(f"the storage is away ({error}); trying again for {self._seconds:g} s")
                    told = True
                time.sleep(min(wait, left))
                wait = min(max(FIRST_WAIT, 2 * wait), LONGEST_WAIT)
                write = again
            else:
                if told:
                    self._note("the storage is back")
                return result
