"""The scores of a run as a pandas table, for one's own analysis. Imports pandas, so nothing on the command line's fast path uses it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from headsearch.runs.run import read_records


def curves(run: str | Path) -> pd.DataFrame:
    """One row per trial and rung: what was trained, and every score there.

    Columns: number, state, head_id, family, control, replicate, seed, then the fields of `RungScores` with the discrepancy measures and
    the measures of quality as columns of their own, by name. Unknown is missing.

    Raises:
        RunError: no such run, or its study cannot be read.
    """
    rows = [
        {
            "number": record.number,
            "state": record.state,
            "head_id": record.head_id,
            "family": record.config.family,
            "control": record.control,
            "replicate": record.replicate,
            "seed": record.seed,
            **{name: value for name, value in rung.to_dict().items() if name not in ("measures", "quality")},
            **rung.measures,
            **rung.quality,
        }
        for record in read_records(run)
        if record.state != "duplicate"
        for rung in record.rungs
    ]
    return pd.DataFrame(rows)
