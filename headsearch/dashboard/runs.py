"""The runs that a dashboard shows, kept fresh. Runs are known to the browser by their position alone; no path comes from it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from headsearch.runs.reading import RunReader
from headsearch.runs.run import Run


class Runs:
    """Several runs, read by the threads of a server."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Raises `RunError` where one is no run directory."""
        self._readers = [RunReader(path) for path in paths]
        self._lock = threading.Lock()
        self._views = [reader.read() for reader in self._readers]
        self._versions = [1] * len(self._views)

    @property
    def views(self) -> Sequence[Run]:
        """Every run, as of the last refresh."""
        return self._views

    def refresh(self) -> Sequence[int]:
        """Look for changes; for every run a number that grows when one is found."""
        with self._lock:
            for place, reader in enumerate(self._readers):
                view = reader.read()
                if view is not self._views[place]:
                    self._views[place] = view
                    self._versions[place] += 1
            return list(self._versions)
