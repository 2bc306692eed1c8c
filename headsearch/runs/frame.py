"""The contents of a run as pandas tables, for your own analysis. Imports pandas, so nothing on the command line's fast path uses it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

import pandas as pd

from headsearch.results.records import TRIAL_COLUMNS, TrialRecord, trial_rows
from headsearch.results.row import RankRow
from headsearch.runs.run import Run, read_run

_WHOLE = ("rank", "params", "flops", "pareto_layer", "epoch", "epochs", "duplicate_of")
"""Columns of whole numbers, of which some may be missing."""


_OF_A_TRIAL = ("number", "state", "head_id", "family", "control", "replicate", "seed")
"""Columns of trials that every rung of theirs has."""


def ranking(rows: Iterable[RankRow]) -> pd.DataFrame:
    """One row per head, with the fields of `RankRow`. Unknown is missing."""
    return _whole(
        pd.DataFrame([row.to_dict() for row in rows], columns=[field.name for field in fields(RankRow)])
    )


def trials(records: Iterable[TrialRecord]) -> pd.DataFrame:
    """One row per trial, by number, with the columns of `headsearch trials`. Unknown is missing."""
    return _whole(pd.DataFrame(trial_rows(records)))


def curves(run: Run | str | Path) -> pd.DataFrame:
    """One row per trial and rung: what was trained, and all scores at that rung.

    Columns: number, state, head_id, family, control, replicate, seed, then the fields of `RungScores`, with a column for each discrepancy
    and each quality measure, by name. Unknown is missing.

    Raises:
        RunError: there is no such run, or its study cannot be read.
    """
    rows = [
        {
            **{name: TRIAL_COLUMNS[name](record) for name in _OF_A_TRIAL},
            **{name: value for name, value in rung.to_dict().items() if name not in ("measures", "quality")},
            **rung.measures,
            **rung.quality,
        }
        for record in (run if isinstance(run, Run) else read_run(run)).records
        if record.state != "duplicate"
        for rung in record.rungs
    ]
    return pd.DataFrame(rows)


def _whole(table: pd.DataFrame) -> pd.DataFrame:
    return table.astype({name: "Int64" for name in _WHOLE if name in table})
