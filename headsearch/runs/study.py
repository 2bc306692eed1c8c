"""Reads a study again and again while a search writes it, without Optuna where it is SQLite. What has ended is not read twice."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headsearch.errors import HeadsearchError, RunError
from headsearch.results.records import TrialRecord
from headsearch.runs.attributes import attributes, decode
from headsearch.runs.reading import Times, sqlite_attributes, sqlite_times

if TYPE_CHECKING:
    from optuna.storages import BaseStorage


@dataclass(frozen=True)
class StudyContents:
    """What a study holds."""

    records: tuple[TrialRecord, ...]
    """By number; trials that cannot be read are left out."""
    times: Mapping[int, Times]
    problems: tuple[str, ...]
    """What could not be read, one line each."""


class StudyReader:
    """Follows one study."""

    def __init__(self, path: Path, storage: str | None, study: str | None) -> None:
        """Follow the study named `study` in the Optuna storage at URL `storage`, or, without one, in the file `path`.

        Without a name it is the only study of the file.
        """
        self._path = path
        self._url = storage
        self._name = study
        self._storage: BaseStorage | None = None
        self._ended: dict[int, TrialRecord] = {}
        self._times: dict[int, Times] = {}
        self._file: int | None = None

    @property
    def is_file(self) -> bool:
        """Whether it lies in a file of the run's own."""
        return self._url is None

    def reads(self, storage: str | None, study: str | None) -> bool:
        """Whether this is the reader of that study."""
        return (self._url, self._name) == (storage, study)

    def read(self) -> StudyContents:
        """Everything in it now. What cannot be read is told, not raised."""
        try:
            return self._read_file() if self.is_file else self._read_storage()
        except HeadsearchError as error:
            return StudyContents(tuple(self._ended.values()), dict(self._times), (str(error),))

    def _read_file(self) -> StudyContents:
        try:
            inode = self._path.stat().st_ino
        except OSError:
            return StudyContents((), {}, ())
        if inode != self._file:
            # Another study under the same name: what is remembered belongs to the former.
            self._ended, self._times, self._file = {}, {}, inode
        name = self._name or _only_study(self._path)
        texts = sqlite_attributes(self._path, name, skip=self._ended.keys())
        times = sqlite_times(self._path, name, skip=self._ended.keys())
        return self._merged(
            {number: partial(_parsed, found) for number, found in texts.items()},
            times,
        )

    def _read_storage(self) -> StudyContents:
        from headsearch.runs.storages import open_storage

        assert self._url is not None
        if self._name is None:
            raise RunError("the study in search.storage cannot be read: run.json does not name it")
        if self._storage is None:
            self._storage = open_storage(self._url)
        try:
            study = self._storage.get_study_id_from_name(self._name)
        except KeyError:
            raise RunError(f"search.storage has no study '{self._name}'") from None
        trials = self._storage.get_all_trials(study, deepcopy=False)
        return self._merged(
            {trial.number: partial(attributes, trial) for trial in trials},
            {trial.number: (trial.datetime_start, trial.datetime_complete) for trial in trials},
        )

    def _merged(
        self, noted: Mapping[int, Callable[[], Mapping[str, Any]]], times: Mapping[int, Times]
    ) -> StudyContents:
        """What is known of former readings, and what is new; a trial's attributes are asked for one by one, since they may be broken."""
        problems = []
        records = dict(self._ended)
        for number, found in noted.items():
            try:
                record = decode(number, found())
            except (HeadsearchError, KeyError, TypeError, ValueError, AttributeError) as error:
                problems.append(
                    f"trial {number} cannot be read: {' '.join(str(error).split()) or type(error).__name__}"
                )
                continue
            if record is None:
                continue
            records[number] = record
            if record.state != "running":
                self._ended[number] = record
                if number in times:
                    self._times[number] = times[number]
        return StudyContents(
            tuple(records[number] for number in sorted(records)), {**self._times, **times}, tuple(problems)
        )


def _parsed(texts: Mapping[str, str]) -> dict[str, Any]:
    return {key: json.loads(text) for key, text in texts.items()}


def _only_study(path: Path) -> str:
    try:
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
        ) as database:
            names = [name for (name,) in database.execute("SELECT study_name FROM studies")]
    except sqlite3.Error as error:
        raise RunError(f"{path}: cannot be read as a study: {error}") from None
    if len(names) != 1:
        raise RunError(f"{path}: has {len(names)} studies, and nothing says which is this run's")
    return str(names[0])
