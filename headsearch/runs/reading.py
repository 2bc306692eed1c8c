"""Reads the trials of a study, without Optuna where it is SQLite: opening a study through Optuna takes over a second, most of it imports.

The attributes that `ledger.py` writes hold everything, so only four of Optuna's tables are looked at. They have not changed since schema
version 12 (Optuna 3.0); a test compares this reader with Optuna's own.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import defaultdict
from collections.abc import Collection
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headsearch.errors import RunError
from headsearch.results.records import TrialRecord
from headsearch.runs.attributes import attributes, decode
from headsearch.runs.failures import in_one_line

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

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


def read_sqlite(path: Path, study: str) -> list[TrialRecord]:
    """Every trial of a study in a SQLite file, by number; none where the search was killed before it made the study.

    Raises:
        RunError: the file is not a study.
    """
    noted = sqlite_attributes(path, study)
    return [
        record
        for number, found in noted.items()
        if (record := decode(number, {key: json.loads(text) for key, text in found.items()})) is not None
    ]


def sqlite_attributes(path: Path, study: str, *, skip: Collection[int] = ()) -> dict[int, dict[str, str]]:
    """The attributes, as JSON, of every trial whose number is not in `skip`, by number. Raises `RunError` as `read_sqlite`."""
    noted: dict[int, dict[str, str]] = defaultdict(dict)
    for number, key, text in _query(path, _TRIALS, study, skip):
        noted[number][key] = text
    return noted


def sqlite_times(path: Path, study: str, *, skip: Collection[int] = ()) -> dict[int, Times]:
    """When the trials began and ended, by number. Raises `RunError` as `read_sqlite`."""
    return {number: (_time(start), _time(end)) for number, start, end in _query(path, _TIMES, study, skip)}


def _query(path: Path, statement: str, study: str, skip: Collection[int]) -> list[tuple[Any, ...]]:
    if not path.exists():
        return []
    # Not read-only where that can be helped: a coordinator that was killed leaves a log, which the next reader has to work off.
    mode = "mode=rw" if os.access(path.parent, os.W_OK) else "mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=10)) as database:
            return database.execute(statement, (study, json.dumps(sorted(skip)))).fetchall()
    except sqlite3.Error as error:
        raise RunError(f"{path}: cannot be read as a study: {error}") from None


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def read_study(storage: BaseStorage, study: str) -> list[TrialRecord]:
    """The same from any of Optuna's storages.

    Raises:
        RunError: the storage fails.
        KeyError: it has no such study.
    """
    with in_one_line(f"the study '{study}' cannot be read"):
        trials = storage.get_all_trials(storage.get_study_id_from_name(study), deepcopy=False)
    return [record for trial in trials if (record := decode(trial.number, attributes(trial))) is not None]
