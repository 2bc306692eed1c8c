"""Reads a study, once or again and again while a search writes it, from any storage, and never writes there.

SQLite is read without Optuna, whose import takes over a second. The attributes that the ledger writes hold everything, so only four of
Optuna's tables are looked at; they have not changed since schema version 12 (Optuna 3.0), and a test compares this reader with Optuna's own.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headsearch.errors import HeadsearchError, RunError
from headsearch.files import load_json
from headsearch.results.records import TrialRecord
from headsearch.runs.attributes import attributes, decode
from headsearch.runs.sqlite import look, stamp, stamps

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

_STUDIES = "SELECT study_name FROM studies"
_TRIALS = """
    SELECT trials.number, attribute.key, attribute.value_json
    FROM trials
    JOIN studies ON studies.study_id = trials.study_id
    JOIN (
        SELECT trial_id, key, value_json FROM trial_user_attributes
        UNION ALL
        SELECT trial_id, key, value_json FROM trial_system_attributes
    ) AS attribute ON attribute.trial_id = trials.trial_id
    WHERE studies.study_name = ?
        AND trials.number NOT IN (SELECT value FROM json_each(?))
        AND attribute.key IN ('head_id', 'trial', 'rungs', 'outcome')
    ORDER BY trials.number
"""
_TIMES = """
    SELECT trials.number, trials.datetime_start, trials.datetime_complete
    FROM trials
    JOIN studies ON studies.study_id = trials.study_id
    WHERE studies.study_name = ? AND trials.number NOT IN (SELECT value FROM json_each(?))
"""

Times = tuple[datetime | None, datetime | None]
"""When a trial began and ended, in the local time of the coordinator; None where it has not."""
Noted = Mapping[int, Callable[[], Mapping[str, Any]]]
"""By number, what gives the attributes of a trial: one by one, since they may be broken."""


class NoStudy(RunError):
    """The storage has no such study: the search was ended before it made it, or the study is lost."""


@dataclass(frozen=True)
class StudyContents:
    """What a study holds."""

    records: tuple[TrialRecord, ...]
    """By number; trials that cannot be read are left out."""
    times: Mapping[int, Times]
    problems: tuple[str, ...]
    """What could not be read, one line each."""


class StudyReader:
    """Follows one study. What has ended is not read twice where that can be helped."""

    def __init__(self, path: Path) -> None:
        """Follow the only study of the file `path`, until `follow` names another."""
        self._own = path
        self._storage: BaseStorage | None = None
        self._begin(None, None)

    def follow(self, storage: str | None, study: str | None) -> None:
        """Follow the study named `study` in the Optuna storage at URL `storage`, or, without one, in the file. What is known of it is kept."""
        if (storage, study) != (self._url, self._name):
            self.close()
            self._begin(storage, study)

    def _begin(self, storage: str | None, study: str | None) -> None:
        self._url, self._name = storage, study
        self._path = self._own if storage is None else _sqlite_path(storage)
        """The SQLite file; None where it is none."""
        self._ended: dict[int, TrialRecord] = {}
        self._times: dict[int, Times] = {}
        self._file: object = None

    def signature(self) -> object | None:
        """What changes whenever the study does; None where nothing tells."""
        if self._path is not None:
            return stamps(self._path)
        scheme, _, address = os.path.expandvars(self._url or "").partition(":///")
        return stamp(Path(address)) if scheme == "journal" else None

    def close(self) -> None:
        """Let go of connections."""
        if self._storage is not None:
            from headsearch.runs.storages import close_storage

            close_storage(self._storage)
            self._storage = None

    def read(self) -> StudyContents:
        """Everything in it now. A trial that cannot be read is told, not raised.

        Raises:
            RunError: the storage cannot be read; a `NoStudy` where it has no such study.
        """
        noted, times = self._read_storage() if self._path is None else self._read_file(self._path)
        return self._merged(noted, times)

    def remembered(self) -> StudyContents:
        """The trials that had ended when it could be read last."""
        return StudyContents(tuple(self._ended.values()), dict(self._times), ())

    def _read_file(self, path: Path) -> tuple[Noted, Mapping[int, Times]]:
        found = stamp(path)
        if found is None:
            raise NoStudy(f"{path}: there is no such file")
        if found[0] != self._file:
            # Another study under the same name: what is remembered belongs to the former.
            self._ended, self._times, self._file = {}, {}, found[0]
        try:
            texts, times = look(path, partial(_ask, path, self._name, self._ended.keys()))
        except (sqlite3.Error, UnicodeDecodeError, OSError) as error:
            raise RunError(f"{path}: cannot be read as a study: {error}") from None
        return {number: partial(_parsed, found) for number, found in texts.items()}, times

    def _read_storage(self) -> tuple[Noted, Mapping[int, Times]]:
        from headsearch.runs.failures import in_one_line
        from headsearch.runs.storages import open_storage

        assert self._url is not None
        if self._name is None:
            raise RunError("the study in search.storage cannot be read: run.json does not name it")
        if self._storage is None:
            self._storage = open_storage(self._url, reading=True)
        try:
            with in_one_line(f"the study '{self._name}' cannot be read"):
                study = self._storage.get_study_id_from_name(self._name)
                trials = self._storage.get_all_trials(study, deepcopy=False)
        except KeyError:
            raise NoStudy(f"search.storage has no study '{self._name}'") from None
        return (
            {trial.number: partial(attributes, trial) for trial in trials},
            {trial.number: (trial.datetime_start, trial.datetime_complete) for trial in trials},
        )

    def _merged(self, noted: Noted, times: Mapping[int, Times]) -> StudyContents:
        """What is known of former readings, and what is new."""
        problems = []
        records = dict(self._ended)
        for number, found in noted.items():
            try:
                record = decode(number, found())
            except (
                HeadsearchError,
                LookupError,
                TypeError,
                ValueError,
                AttributeError,
                ArithmeticError,
            ) as error:
                problems.append(f"trial {number} cannot be read: {_told(error)}")
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


def _ask(
    path: Path, name: str | None, skip: Collection[int], database: sqlite3.Connection
) -> tuple[dict[int, dict[str, str]], dict[int, Times]]:
    """The attributes, as JSON, and the times of every trial whose number is not in `skip`."""
    names = [found for (found,) in database.execute(_STUDIES)]
    if not names or (name is not None and name not in names):
        raise NoStudy(f"{path}: has no study" + ("" if name is None else f" '{name}'"))
    if name is None and len(names) > 1:
        raise RunError(f"{path}: has {len(names)} studies, and nothing says which is this run's")
    asked = name or names[0], json.dumps(sorted(skip))
    noted: dict[int, dict[str, str]] = defaultdict(dict)
    for number, key, text in database.execute(_TRIALS, asked):
        noted[number][key] = text
    times = {number: (_time(start), _time(end)) for number, start, end in database.execute(_TIMES, asked)}
    return noted, times


def _parsed(texts: Mapping[str, str]) -> dict[str, Any]:
    # The outcome has the scores of all rungs.
    left_out = "rungs" if "outcome" in texts else None
    return {key: load_json(text) for key, text in texts.items() if key != left_out}


def _time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _told(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    return " ".join(str(error).split()) or type(error).__name__


def _sqlite_path(url: str) -> Path | None:
    """The file of a URL; None where it is no SQLite's."""
    url = os.path.expandvars(url)
    if not url.startswith("sqlite") or "${" in url:
        return None
    import sqlalchemy

    try:
        file = sqlalchemy.make_url(url).database
    except (sqlalchemy.exc.ArgumentError, ValueError):
        return None
    return Path(file) if file else None
