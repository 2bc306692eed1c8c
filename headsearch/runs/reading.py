"""Reads a run again and again as it grows."""

from __future__ import annotations

from pathlib import Path

from headsearch.runs.directory import RunDirectory
from headsearch.runs.run import Run, run_of
from headsearch.runs.sqlite import stamp
from headsearch.runs.study import StudyReader
from headsearch.scoring.zero_cost_scores import FILE_NAME


class RunReader:
    """Cheap when nothing changed: it then looks at a few times of files and gives back the same `Run`."""

    def __init__(self, path: str | Path) -> None:
        """Raises `RunError` where there is no run directory."""
        self._directory = RunDirectory.open(path)
        self._study = StudyReader(self._directory.study_path)
        self._signature: object = None
        self._run: Run | None = None

    def read(self) -> Run:
        """The run as it is now; the same object as the last time where nothing changed. Never raises for what is in it."""
        signature = None if self._run is None else self._look(self._run)
        if self._run is None or signature is None or signature != self._signature:
            found = run_of(self._directory, self._study)
            self._run = self._run if found == self._run else found
            # Looked at before the reading: what changed meanwhile is read next time.
            self._signature = signature
        return self._run

    def close(self) -> None:
        """Let go of connections."""
        self._study.close()

    def _look(self, run: Run) -> object | None:
        """What changes whenever the run does; None where nothing tells."""
        study = self._study.signature()
        if study is None:
            return None
        path = self._directory.path
        files = [path / name for name in ("experiment.yaml", "run.json", FILE_NAME)]
        files += [self._directory.metrics_path(running.record.number) for running in run.running]
        return self._directory.at_work, study, *map(stamp, files)
