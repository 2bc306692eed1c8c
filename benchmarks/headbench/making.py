"""Makes the tables of HeadBench. Comes in: the run directories of its parts. Goes out: one row per training and rung."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from headbench.table import HEAD, PARTS, SCORES, VERSION
from headsearch.errors import RunError
from headsearch.files import write_bytes_atomically
from headsearch.results.records import TrialRecord
from headsearch.runs.run import read_records
from headsearch.scoring.discrepancy import MEASURES
from headsearch.scoring.quality import QUALITIES
from headsearch.scoring.zero_cost_scores import FILE_NAME, ZeroCostScores, read_scores
from headsearch.training.trial import RungScores

OVERHEAD = "overhead.json"
"""In a screen's folder: what a step takes beyond one without heads, as a share of the latter; with that of single heads it gives what schedules cost."""

_COSTS = ("params", "flops", "overhead", "seconds", "synflow", "naswot")
COLUMNS = ("version", *HEAD, *SCORES, "miou", *MEASURES, *QUALITIES, *_COSTS)
"""Of a table. Unknown is missing."""


def write_headbench(path: Path, table: pd.DataFrame, columns: Sequence[str] = COLUMNS) -> None:
    """Replace the file: CSV, compressed, with figures of six digits. The same table gives the same bytes."""
    text = table.assign(version=VERSION).to_csv(index=False, columns=list(columns), float_format="%.6g")
    # Without a time, which would change with every call.
    write_bytes_atomically(path, gzip.compress(text.encode(), mtime=0))


def collect(folder: Path) -> pd.DataFrame:
    """The table of the parts that are in `folder`, each a run directory under its name.

    Raises:
        RunError: there is none, or one cannot be read.
    """
    rows: list[dict[str, object]] = []
    for part in PARTS:
        if (folder / part / FILE_NAME).exists() and part == "untrained":
            rows += [untrained_row(scores) for scores in read_scores(folder / part / FILE_NAME)]
        elif (folder / part).exists():
            joint = folder / part / OVERHEAD
            overhead = json.loads(joint.read_text(encoding="utf-8")) if joint.exists() else None
            rows += [
                _trained(part, record, rung) | ({} if overhead is None else {"overhead": overhead})
                for record in read_records(folder / part)
                if record.state != "duplicate"
                for rung in record.rungs
            ]
    if not rows:
        raise RunError(f"{folder}: has no part of a HeadBench; expected one of {', '.join(PARTS)}")
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"seed": "Int64"})


def _trained(part: str, record: TrialRecord, rung: RungScores) -> dict[str, object]:
    cost = record.cost
    return {
        "part": part,
        "head_id": record.head_id,
        "family": record.config.family,
        "control": record.control,
        "config": json.dumps(record.config.to_dict()),
        "state": record.state,
        "replicate": record.replicate,
        "seed": record.seed,
        **{name: getattr(rung, name) for name in SCORES},
        **rung.measures,
        **rung.quality,
        "params": None if cost is None else cost.params,
        "flops": None if cost is None else cost.flops,
        "overhead": None if cost is None else cost.overhead,
        "seconds": record.seconds,
    }


def untrained_row(scores: ZeroCostScores) -> dict[str, object]:
    """Of a head that is not trained."""
    return {
        "part": "untrained",
        "head_id": scores.head_id,
        "family": scores.config.family,
        "config": json.dumps(scores.config.to_dict()),
        "state": "complete" if scores.reason is None else "infeasible",
        "replicate": 0,
        # Not left out: as floats, seeds of others would lose their last digits.
        "seed": pd.NA,
        "epoch": 0,
        "rankme_head": scores.rankme_head,
        **scores.measures,
        **scores.quality,
        "params": None if scores.cost is None else scores.cost.params,
        "flops": None if scores.cost is None else scores.cost.flops,
        "synflow": scores.synflow,
        "naswot": scores.naswot,
    }
