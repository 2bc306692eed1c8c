"""Reads a run: once, or again and again as it grows. What cannot be read is named in `Run.problems`, and the rest is there. Nothing is ever written."""

from __future__ import annotations

import contextlib
from pathlib import Path

from headsearch.errors import RunError
from headsearch.experiment import Experiment
from headsearch.results.records import TrialRecord
from headsearch.runs.directory import RunDirectory, RunFacts
from headsearch.runs.epochs import last_epoch
from headsearch.runs.run import Run
from headsearch.runs.sqlite import stamp
from headsearch.runs.study import NoStudy, StudyReader
from headsearch.scoring.zero_cost_scores import FILE_NAME, readable_scores


class RunReader:
    """Reads a run again and again. Cheap when nothing changed: it then looks at a few times of files and gives back the same `Run`."""

    def __init__(self, path: str | Path) -> None:
        """Raises `RunError` where there is no run directory."""
        self._directory = RunDirectory.open(path)
        self._study: StudyReader | None = None
        self._signature: object = None
        self._run: Run | None = None

    def read(self) -> Run:
        """The run as it is now; the same object as the last time where nothing changed. Never raises for what is in it."""
        signature = self._look()
        if self._run is None or signature is None or signature != self._signature:
            found = self._fresh()
            self._run = self._run if found == self._run else found
            # Looked at before the reading: what changed meanwhile is read next time.
            self._signature = signature
        return self._run

    def close(self) -> None:
        """Let go of connections."""
        if self._study is not None:
            self._study.close()

    def _look(self) -> object | None:
        """What changes whenever the run does; None where nothing tells."""
        study = None if self._study is None else self._study.signature()
        if self._run is None or study is None:
            return None
        path = self._directory.path
        files = [path / name for name in ("experiment.yaml", "run.json", FILE_NAME)]
        files += [self._directory.metrics_path(running.record.number) for running in self._run.running]
        return self._directory.at_work, study, *map(stamp, files)

    def _fresh(self) -> Run:
        directory = self._directory
        problems: list[str] = []
        experiment: Experiment | None = None
        facts: RunFacts | None = None
        try:
            experiment = directory.experiment()
        except RunError as error:
            problems.append(str(error))
        try:
            facts = directory.facts()
        except RunError as error:
            problems.append(str(error))
        storage = experiment.search.storage if experiment is not None else None
        study = facts.study if facts is not None else None
        if self._study is None or not self._study.reads(storage, study):
            self.close()
            self._study = StudyReader(directory.study_path, storage, study)
        failure = None
        try:
            contents = self._study.read()
        except RunError as error:
            contents = self._study.remembered()
            if directory.begun or not isinstance(error, NoStudy):
                failure = str(error)
                problems.append(failure)
        candidates, unreadable = readable_scores(directory.path / FILE_NAME)
        running = [record.number for record in contents.records if record.state == "running"]
        epochs = {number: last_epoch(directory.metrics_path(number)) for number in running}
        return Run(
            path=directory.path,
            experiment=experiment,
            facts=facts,
            records=contents.records,
            times=contents.times,
            candidates=tuple(candidates),
            epochs={number: epoch for number, epoch in epochs.items() if epoch is not None},
            at_work=directory.at_work,
            problems=(*problems, *contents.problems, *unreadable),
            failure=failure,
        )


def look_at(path: str | Path) -> Run:
    """A run as it is now, also where nothing of it can be read. Raises `RunError` where there is no run directory."""
    with contextlib.closing(RunReader(path)) as reader:
        return reader.read()


def read_run(path: str | Path) -> Run:
    """A run as it is now, whose study can be read, if not every trial of it. Raises `RunError` where there is none."""
    run = look_at(path)
    if run.failure is not None:
        raise RunError(run.failure)
    return run


def read_records(path: str | Path) -> list[TrialRecord]:
    """Every trial of a run directory that can be read, by number, as it is now; also while a search writes it. Raises `RunError` as `read_run`."""
    return list(read_run(path).records)
