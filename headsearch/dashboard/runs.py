"""The runs that a dashboard shows, kept fresh. Runs are known to the browser by their position alone; no path comes from it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from headsearch.report.data import RunReader, RunView


class Runs:
    """Several runs, read by the threads of a server."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Raises `RunError` where one is no run directory."""
        self._readers = [RunReader(path) for path in paths]
        self._lock = threading.Lock()
        self._views: list[RunView] = []
        self._version = 0
        self.refresh()

    @property
    def views(self) -> Sequence[RunView]:
        """Every run, as of the last refresh."""
        return self._views

    @property
    def version(self) -> int:
        """Grows with every change that a refresh found."""
        return self._version

    def refresh(self) -> int:
        """Look for changes; the version after that."""
        with self._lock:
            views = [reader.read() for reader in self._readers]
            if len(views) != len(self._views) or any(
                a is not b for a, b in zip(views, self._views, strict=True)
            ):
                self._views = views
                self._version += 1
            return self._version
